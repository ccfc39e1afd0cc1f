-- Settles one partition by the outcome of a batch, all of it or nothing, if the lease is still held.
--
-- KEYS  1 lease  2 partition  3 events  4 pending  5 ledger:new  6 ledger:old  7 late  8 dead  9 dead:pairs  10 totals
-- ARGV  1 token  2 seq: number of settles the caller knows of  3 renew_ms, 0 releases the lease
--       4 position: id of the last entry settled, '' if it stays  5 ledger_ms  6 dead_cap: most letters of a partition
--       7..13 how many items follow of each kind, in this order:
--         ledger (pair, confirmed) · pending to keep (pair, state) · pending to drop (pair) · late to clear (pair, mark)
--         · dead letters (pair, confirmed or '', letter) · known of dead pairs (pair, confirmed) · totals (name, number)
-- Returns { 'settled', waiting, pending, late, late_due_ms, dead, dead_pairs }, also if this very settle was done before
--   and its reply was lost; { 'fenced' }; or { 'full' } if the letters do not fit and nothing was done
local lease, partition, events, pending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local late, dead, dead_pairs = KEYS[7], KEYS[8], KEYS[9]
local token, expected = ARGV[1], tonumber(ARGV[2])

local known = redis.call('HMGET', partition, 'token', 'seq', 'rotated', 'oldest', 'late_due', 'oldest_delete')
local seq = tonumber(known[2] or '0')
local function settled(late_due_ms)
  return { 'settled', redis.call('XLEN', events), redis.call('HLEN', pending), redis.call('HLEN', late), late_due_ms,
    redis.call('HLEN', dead), redis.call('HLEN', dead_pairs) }
end
if known[1] == token and seq == expected + 1 then
  return settled(tonumber(known[5] or '0'))
end
if redis.call('GET', lease) ~= token or seq ~= expected then
  return { 'fenced' }
end

local at = 14
local function block(kind, width)
  local first = at
  at = at + tonumber(ARGV[6 + kind]) * width
  return first, at - 1
end
local ledger_first, ledger_last = block(1, 2)
local keep_first, keep_last = block(2, 2)
local drop_first, drop_last = block(3, 1)
local clear_first, clear_last = block(4, 2)
local letter_first, letter_last = block(5, 3)
local know_first, know_last = block(6, 2)
local total_first, total_last = block(7, 2)

if letter_last >= letter_first
  and redis.call('HLEN', dead) + (letter_last - letter_first + 1) / 3 > tonumber(ARGV[6]) then
  return { 'full' }
end

-- The log is trimmed first: a full server refuses a script whose first write could grow it.
local position_ms = nil
if ARGV[4] ~= '' then
  local ms, n = string.match(ARGV[4], '^(%d+)-(%d+)$')
  position_ms = tonumber(ms)
  redis.call('XTRIM', events, 'MINID', ms .. '-' .. string.format('%.0f', tonumber(n) + 1))
  redis.call('HSET', partition, 'position', ARGV[4])
else
  redis.call('XTRIM', events, 'MINID', '0-0')
end

-- Lua passes at most some thousands of arguments at once.
local function each_chunk(command, key, first, last)
  for i = first, last, 4000 do
    redis.call(command, key, unpack(ARGV, i, math.min(i + 3999, last)))
  end
end
each_chunk('HSET', KEYS[5], ledger_first, ledger_last)
each_chunk('HSET', pending, keep_first, keep_last)
each_chunk('HDEL', pending, drop_first, drop_last)

local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local function until_ms(mark)
  local upsert, delete = string.match(mark, '^(%d+),(%d+)$')
  return math.max(tonumber(upsert), tonumber(delete))
end
for i = clear_first, clear_last, 2 do
  -- A mark that was renewed meanwhile is another mark; and if the clock went back, a mark may no longer be over.
  if redis.call('HGET', late, ARGV[i]) == ARGV[i + 1] and until_ms(ARGV[i + 1]) <= now_ms then
    redis.call('HDEL', late, ARGV[i])
  end
end

for i = know_first, know_last, 2 do
  local value = redis.call('HGET', dead_pairs, ARGV[i])
  if value then -- its last letter may have been redriven meanwhile
    redis.call('HSET', dead_pairs, ARGV[i], string.match(value, '^%d+') .. ';' .. ARGV[i + 1])
  end
end
for i = letter_first, letter_last, 3 do
  local id = string.match(partition, '{(%d+)}:partition$') .. '-' .. redis.call('HINCRBY', partition, 'letters', 1)
  redis.call('HSET', dead, id, ARGV[i + 2])
  if ARGV[i] ~= '' then
    local value = redis.call('HGET', dead_pairs, ARGV[i])
    local letters = value and tonumber(string.match(value, '^%d+')) or 0
    redis.call('HSET', dead_pairs, ARGV[i], string.format('%.0f', letters + 1) .. ';' .. ARGV[i + 1])
  end
end

for i = total_first, total_last, 2 do
  redis.call('HINCRBY', KEYS[10], ARGV[i], ARGV[i + 1])
end

-- The time of the oldest pair that waits, and of the oldest delete: exact while few wait, else a lower bound.
local waiting = redis.call('HLEN', pending)
local oldest, oldest_delete = tonumber(known[4] or 'inf'), tonumber(known[6] or 'inf')
local function waits(state)
  local one, delete = string.match(state, '^[du](%d+)'), string.match(state, '^d(%d+)')
  local two = string.match(state, '\31[du](%d+)')
  delete = delete or string.match(state, '\31d(%d+)')
  oldest = math.min(oldest, tonumber(one), tonumber(two or 'inf'))
  oldest_delete = math.min(oldest_delete, tonumber(delete or 'inf'))
end
if waiting == 0 then
  oldest, oldest_delete = math.huge, math.huge
elseif waiting <= 128 and (keep_last >= keep_first or drop_last >= drop_first) then
  oldest, oldest_delete = math.huge, math.huge
  for _, state in ipairs(redis.call('HVALS', pending)) do
    waits(state)
  end
else
  for i = keep_first, keep_last, 2 do
    waits(ARGV[i + 1])
  end
end
local function note(name, since, was)
  if since < math.huge then
    if string.format('%.0f', since) ~= was then
      redis.call('HSET', partition, name, string.format('%.0f', since))
    end
  elseif was then
    redis.call('HDEL', partition, name)
  end
end
note('oldest', oldest, known[4])
note('oldest_delete', oldest_delete, known[6])

-- The time at which the next late mark can be judged.
local marks = redis.call('HLEN', late)
local late_due = tonumber(known[5] or '0')
local cleared = clear_last >= clear_first
if marks == 0 and known[5] then
  late_due = 0
  redis.call('HDEL', partition, 'late_due')
elseif marks > 0 and (cleared and marks <= 1000 or not cleared and late_due <= now_ms) then
  -- If many are cleared in one batch after another, each next batch finds what is due without reading all of them here.
  late_due = math.huge
  for _, mark in ipairs(redis.call('HVALS', late)) do
    late_due = math.min(late_due, until_ms(mark))
  end
  redis.call('HSET', partition, 'late_due', string.format('%.0f', late_due))
end

-- The ledger rotates by log time, and never while a change waits that the forgotten outcomes might still outdate.
if position_ms then
  local ledger_ms = tonumber(ARGV[5])
  local rotated = tonumber(known[3] or '0')
  if not known[3] or (position_ms > rotated + ledger_ms and oldest > rotated + ledger_ms and marks == 0) then
    -- By the log's newest entry too: if the clock went back, unread entries carry later times than it shows.
    local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
    local last_ms = last and tonumber(string.match(last[1], '^%d+')) or 0
    redis.call('HSET', partition, 'rotated', string.format('%.0f', math.max(now_ms, position_ms, last_ms)))
    if known[3] then
      redis.call('UNLINK', KEYS[6])
      if redis.call('EXISTS', KEYS[5]) == 1 then
        redis.call('RENAME', KEYS[5], KEYS[6])
      end
    end
  end
end

redis.call('HSET', partition, 'seq', string.format('%.0f', seq + 1))
if tonumber(ARGV[3]) > 0 then
  redis.call('PEXPIRE', lease, ARGV[3])
else
  redis.call('DEL', lease)
  redis.call('HDEL', partition, 'holder')
end
return settled(late_due)
