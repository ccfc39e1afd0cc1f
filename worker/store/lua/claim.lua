-- Takes the lease of one partition, if nobody holds it.
--
-- KEYS  1 lease  2 partition  3 events  4 pending  5 late  6 dead  7 dead:pairs  8 ledger:new  9 ledger:old  10 totals
-- ARGV  1 lease_ms  2 late_ms: how long a request may still act after its deadline
-- Returns nil if the lease is held, else
--   { token, now_ms, seq, position, waiting, pending, late, late_due_ms, dead, dead_pairs, late_until_ms, late_to_ms,
--     replaced: 1 if the log was replaced by another, which is read from its start
--     trimmed: entries that are gone unread, as first_trimmed says }
local lease, partition, events = KEYS[1], KEYS[2], KEYS[3]

if redis.call('EXISTS', lease) == 1 then
  return false
end

-- A key of the wrong type fails here, before anything is written: the caller passes over this partition alone.
local sizes = {}
for i = 4, #KEYS do
  sizes[i] = redis.call('HLEN', KEYS[i])
end

local held = redis.call('HMGET', partition, 'token', 'holder', 'position', 'seq', 'late_until', 'late_to', 'late_due')
local last_token, holder = tonumber(held[1] or '0'), held[2]
local position, seq = held[3] or '0-0', held[4] or '0'
local late_until, late_to = tonumber(held[5] or '0'), tonumber(held[6] or '0')

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('XTRIM', events, 'MINID', '0-0')

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

-- A settle trims what it settles, and ids only rise. So if the log has an entry at or before the position, or is gone,
-- it was replaced: nothing of the log that is there was read yet, and nothing of it may be skipped.
local replaced = 0
if position ~= '0-0' then
  local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if first then
    local ms, n = string.match(first[1], '^(%d+)-(%d+)$')
    local position_ms, position_n = string.match(position, '^(%d+)-(%d+)$')
    ms, position_ms = tonumber(ms), tonumber(position_ms)
    if ms < position_ms or (ms == position_ms and tonumber(n) <= tonumber(position_n)) then
      replaced = 1
    end
  elseif redis.call('EXISTS', events) == 0 then
    replaced = 1
  end
end
if replaced == 1 then
  position = '0-0'
  redis.call('HSET', partition, 'position', position, 'strayed', string.format('%.0f', now_ms)) -- the field keeps its old name
end
-- From the last token too, so that tokens rise even if the clock, or the whole server, went back.
local token = string.format('%.0f', math.max(last_token + 1, now_us))

if holder then
  -- The holder's lease expired and was never released: it may have sent a request that nobody knows of.
  local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)
  late_until = math.max(late_until, now_ms + ARGV[2])
  late_to = now_ms
  if last[1] then
    late_to = math.max(late_to, tonumber(string.match(last[1][1], '^%d+')))
  end
  redis.call('HSET', partition, 'late_until', string.format('%.0f', late_until),
    'late_to', string.format('%.0f', late_to))
end

redis.call('SET', lease, token, 'PX', ARGV[1])
redis.call('HSET', partition, 'token', token, 'holder', token)
return { token, now_ms, seq, position, redis.call('XLEN', events), sizes[4], sizes[5], tonumber(held[7] or '0'),
  sizes[6], sizes[7], late_until, late_to, replaced,
  first_trimmed(partition, events, KEYS[10], now_ms) }
