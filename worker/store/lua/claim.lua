-- Takes the lease of one partition, if nobody holds it.
--
-- KEYS  1 lease  2 partition  3 events  4 bulk  5 late  6 dead  7 dead:pairs  8..15 pending of each class: live deletes,
--       live upserts, bulk deletes, bulk upserts, and behind each of these those of owners with very many
--       16 parked  17 ledger:new  18 ledger:old  19 totals
-- ARGV  1 lease_ms  2 late_ms: how long a request may still act after its deadline
-- Returns nil if the lease is held, else
--   { token, now_ms, seq, position, bulk_position, waiting, bulk_waiting, late, late_due_ms, dead, dead_pairs,
--     late_until_ms, late_to_ms, replaced: 1 if a log was replaced by another, which is read from its start, until the
--     field `untold_replaced` is removed: whoever logs the alarm does so,
--     parked, parked_due_ms, then the number of pending pairs of each class,
--     trimmed: entries that are gone unread, as untold_trimmed says }
local lease, partition, events, bulk = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

if redis.call('EXISTS', lease) == 1 then
  return false
end

-- A key of the wrong type fails here, before anything is written: the caller passes over this partition alone. One call
-- finds out that none of those is there that mostly are not.
local sizes = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
local bulk_waiting = redis.call('XLEN', bulk)
for i = redis.call('EXISTS', unpack(KEYS, 5, 16)) > 0 and 5 or 17, #KEYS do
  sizes[i] = redis.call('HLEN', KEYS[i])
end

local held = redis.call('HMGET', partition, 'token', 'holder', 'position', 'seq', 'late_until', 'late_to', 'late_due',
  'bulk_position', 'parked_due', 'untold_replaced')
local last_token, holder = tonumber(held[1] or '0'), held[2]
local position, seq = held[3] or '0-0', held[4] or '0'
local late_until, late_to = tonumber(held[5] or '0'), tonumber(held[6] or '0')

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('XTRIM', events, 'MINID', '0-0')

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

-- What is settled is trimmed in the same step, and ids only rise. So a log that has an entry at or before the position,
-- or is not there at all, is not the log that the position is of: it was replaced, and is read from its start. The field
-- `strayed` says when. It keeps the name by which an earlier version, which may run beside this one, knows it.
local replaced = tonumber(held[10] or '0')
local function stays(log, field, settled)
  if settled == '0-0' then
    return settled
  end
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if first then
    local ms, n = string.match(first[1], '^(%d+)-(%d+)$')
    local settled_ms, settled_n = string.match(settled, '^(%d+)-(%d+)$')
    -- As text, because Lua does not know every number of 64 bits exactly: the longer one is greater.
    local function greater(one, other)
      return #one > #other or (#one == #other and one > other)
    end
    if greater(ms, settled_ms) or (ms == settled_ms and greater(n, settled_n)) then
      return settled
    end
  elseif redis.call('EXISTS', log) == 1 then
    return settled
  end
  replaced = 1
  redis.call('HSET', partition, field, '0-0', 'strayed', string.format('%.0f', now_ms),
    'untold_replaced', '1')
  return '0-0'
end
position = stays(events, 'position', position)
local bulk_position = stays(bulk, 'bulk_position', held[8] or '0-0')
-- The last token counts beside the clock, so that tokens rise even if the clock, or the whole server, went back.
local token = string.format('%.0f', math.max(last_token + 1, now_us))

if holder then
  -- Its lease expired and was never released: it may have sent something that nobody knows of.
  late_until = math.max(late_until, now_ms + ARGV[2])
  late_to = now_ms
  for _, log in ipairs({ events, bulk }) do
    local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
    if last[1] then
      late_to = math.max(late_to, tonumber(string.match(last[1][1], '^%d+')))
    end
  end
  redis.call('HSET', partition, 'late_until', string.format('%.0f', late_until),
    'late_to', string.format('%.0f', late_to))
end

redis.call('SET', lease, token, 'PX', ARGV[1])
redis.call('HSET', partition, 'token', token, 'holder', token)
return { token, now_ms, seq, position, bulk_position, redis.call('XLEN', events), bulk_waiting, sizes[5],
  tonumber(held[7] or '0'), sizes[6], sizes[7], late_until, late_to, replaced, sizes[16], tonumber(held[9] or '0'),
  sizes[8], sizes[9], sizes[10], sizes[11], sizes[12], sizes[13], sizes[14], sizes[15],
  untold_trimmed(partition, { events, bulk }, KEYS[19], now_ms) }
