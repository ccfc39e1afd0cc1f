-- Settles one partition by the outcome of a batch, all of it or nothing, if the lease is still held.
--
-- KEYS  1 lease  2 partition  3 events  4 bulk  5 ledger:new  6 ledger:old  7 late  8 dead  9 dead:pairs  10 totals
--       11..18 pending of each class: live deletes, live upserts, bulk deletes, bulk upserts, and behind each of these
--       those of owners with very many  19 parked
-- ARGV  1 token  2 seq: number of settles the caller knows of  3 renew_ms, 0 releases the lease
--       4 position: id of the last entry settled, '' if it stays  5 ledger_ms  6 dead_cap: most letters a partition
--       7 bulk_position: the same as 4 of the bulk lane's log
--       8..31 how many items follow of each kind, in this order:
--         ledger (pair, confirmed) · pending to keep (pair, state), of each class · pending to drop (pair), of each class
--         · late to clear (pair, mark) · dead letters (pair, confirmed or '', letter)
--         · known of dead pairs (pair, confirmed) · totals (name, number) · to park (pair, parked) · to unpark (pair)
--         · to forget (pair)
-- Returns { 'settled', waiting, bulk_waiting, late, late_due_ms, dead, dead_pairs, parked, parked_due_ms, then pending
--   pairs of each class }, also if this very settle was done before and its reply was lost; { 'fenced' }; or { 'full' }
--   if the letters do not fit and nothing was done
local lease, partition, events, bulk = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local late, dead, dead_pairs, parked = KEYS[7], KEYS[8], KEYS[9], KEYS[19]
local token, expected = ARGV[1], tonumber(ARGV[2])

local known = redis.call('HMGET', partition, 'token', 'seq', 'rotated', 'oldest', 'late_due', 'oldest_delete',
  'oldest_bulk', 'parked_due')
local seq = tonumber(known[2] or '0')
-- How many fields the keys have that are mostly not there: 7 to 9, and 11 to 19. One call finds out that none is.
local function sizes_now()
  local sizes = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  if redis.call('EXISTS', late, dead, dead_pairs, unpack(KEYS, 11, 19)) > 0 then
    for i = 7, 19 do
      sizes[i] = redis.call('HLEN', KEYS[i])
    end
  end
  return sizes
end
local function settled(sizes, late_due_ms, parked_due_ms)
  return { 'settled', redis.call('XLEN', events), redis.call('XLEN', bulk), sizes[7], late_due_ms, sizes[8], sizes[9],
    sizes[19], parked_due_ms, unpack(sizes, 11, 18) }
end
if known[1] == token and seq == expected + 1 then
  return settled(sizes_now(), tonumber(known[5] or '0'), tonumber(known[8] or '0'))
end
if redis.call('GET', lease) ~= token or seq ~= expected then
  return { 'fenced' }
end

local at = 32
local function block(kind, width)
  local first = at
  at = at + tonumber(ARGV[7 + kind]) * width
  return first, at - 1
end
local ledger_first, ledger_last = block(1, 2)
local classes = {}
for i = 1, 8 do
  classes[i] = { key = KEYS[10 + i] }
  classes[i].keep_first, classes[i].keep_last = block(1 + i, 2)
end
for i = 1, 8 do
  classes[i].drop_first, classes[i].drop_last = block(9 + i, 1)
end
local clear_first, clear_last = block(18, 2)
local letter_first, letter_last = block(19, 3)
local know_first, know_last = block(20, 2)
local total_first, total_last = block(21, 2)
local park_first, park_last = block(22, 2)
local unpark_first, unpark_last = block(23, 1)
local forget_first, forget_last = block(24, 1)

if letter_last >= letter_first
  and redis.call('HLEN', dead) + (letter_last - letter_first + 1) / 3 > tonumber(ARGV[6]) then
  return { 'full' }
end

-- The log is trimmed first: a full server refuses a script whose first write could grow it.
local position_ms = nil
redis.call('XTRIM', events, 'MINID', '0-0')
local function settle_log(log, field, position)
  if position ~= '' then
    local ms, n = string.match(position, '^(%d+)-(%d+)$')
    position_ms = math.min(position_ms or math.huge, tonumber(ms))
    if #n < 16 then
      redis.call('XTRIM', log, 'MINID', ms .. '-' .. string.format('%.0f', tonumber(n) + 1))
    else -- a number that Lua does not know exactly: somebody chose the id
      redis.call('XTRIM', log, 'MINID', position)
      redis.call('XDEL', log, position)
    end
    redis.call('HSET', partition, field, position)
  end
end
settle_log(events, 'position', ARGV[4])
settle_log(bulk, 'bulk_position', ARGV[7])

-- Lua passes at most some thousands of arguments at once, and managed services take 3,999 in one command.
local function each_chunk(command, key, first, last)
  for i = first, last, 3900 do
    redis.call(command, key, unpack(ARGV, i, math.min(i + 3899, last)))
  end
end
-- Redis keeps a hash of up to 512 fields as a list, and searches all of it for each field. One value above 64 bytes makes
-- it a table for good. So many at once would soon do so anyway, after that search had cost Redis more than all else here.
local function fill(key, first, last)
  local many = last - first > 2 * 128
  if many then
    redis.call('HSET', key, '', string.rep('-', 65))
  end
  each_chunk('HSET', key, first, last)
  if many then
    redis.call('HDEL', key, '')
  end
end
fill(KEYS[5], ledger_first, ledger_last)
each_chunk('HDEL', KEYS[5], forget_first, forget_last)
each_chunk('HDEL', KEYS[6], forget_first, forget_last)
for _, class in ipairs(classes) do
  each_chunk('HDEL', class.key, class.drop_first, class.drop_last)
  fill(class.key, class.keep_first, class.keep_last)
end
each_chunk('HDEL', parked, unpark_first, unpark_last)
each_chunk('HSET', parked, park_first, park_last)

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

local sizes = sizes_now() -- nothing below changes them

-- The time of the oldest pair of each lane that waits, and of the oldest live delete: exact while few wait, else the
-- lower bound known.
local function oldest_of(first, known_oldest, known_delete)
  local oldest, oldest_delete = tonumber(known_oldest or 'inf'), tonumber(known_delete or 'inf')
  local function waits(state)
    local one, delete = string.match(state, '^[du](%d+)'), string.match(state, '^d(%d+)')
    local two = string.match(state, '\31[du](%d+)')
    delete = delete or string.match(state, '\31d(%d+)')
    oldest = math.min(oldest, tonumber(one), tonumber(two or 'inf'))
    oldest_delete = math.min(oldest_delete, tonumber(delete or 'inf'))
  end
  local waiting, moved = 0, false
  for i = first, first + 3 do
    local class = classes[i]
    waiting = waiting + sizes[10 + i]
    moved = moved or class.keep_last >= class.keep_first or class.drop_last >= class.drop_first
  end
  if waiting == 0 then
    return math.huge, math.huge
  elseif waiting <= 128 and moved then
    oldest, oldest_delete = math.huge, math.huge
    for i = first, first + 3 do
      for _, state in ipairs(redis.call('HVALS', classes[i].key)) do
        waits(state)
      end
    end
  else
    for i = first, first + 3 do
      for j = classes[i].keep_first, classes[i].keep_last, 2 do
        waits(ARGV[j + 1])
      end
    end
  end
  return oldest, oldest_delete
end
local oldest, oldest_delete = oldest_of(1, known[4], known[6])
local oldest_bulk = oldest_of(5, known[7], nil)
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
note('oldest_bulk', oldest_bulk, known[7])
note('oldest_delete', oldest_delete, known[6])

-- The time at which the next late mark can be judged.
local marks = sizes[7]
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

-- The time at which the next parked pair is tried again: exact while few are parked, else the lower bound known.
local parked_pairs = sizes[19]
local parked_due = tonumber(known[8] or '0')
local moved = park_last >= park_first or unpark_last >= unpark_first
local function due_ms(value)
  return tonumber(string.match(value, '^%d+'))
end
if parked_pairs == 0 then
  parked_due = 0
elseif not known[8] or (moved and parked_pairs <= 1000) or (not moved and parked_due <= now_ms) then
  parked_due = math.huge
  for _, value in ipairs(redis.call('HVALS', parked)) do
    parked_due = math.min(parked_due, due_ms(value))
  end
else
  for i = park_first, park_last, 2 do
    parked_due = math.min(parked_due, due_ms(ARGV[i + 1]))
  end
end
note('parked_due', parked_pairs > 0 and parked_due or math.huge, known[8])

-- The ledger rotates by log time, and never while anything waits in either lane, read or unread, that what it forgets
-- might still outdate.
if position_ms then
  local reach_ms = tonumber(known[3] or '0') + tonumber(ARGV[5])
  local unread, last_ms = math.huge, 0
  for _, log in ipairs({ events, bulk }) do
    local head = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if head then
      -- By its newest entry too: if the clock went back, what waits unread carries later times than it shows.
      local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
      unread = math.min(unread, tonumber(string.match(head[1], '^%d+')))
      last_ms = math.max(last_ms, tonumber(string.match(last[1], '^%d+')))
    end
  end
  if not known[3] or math.min(position_ms, oldest, oldest_bulk, unread) > reach_ms then
    local from_ms = math.max(now_ms, position_ms, last_ms)
    if known[3] then
      rotate_ledger(partition, KEYS[5], KEYS[6], { late, parked }, known[3], from_ms)
    else
      redis.call('HSET', partition, 'rotated', string.format('%.0f', from_ms), 'vouched', '0')
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
return settled(sizes, late_due, parked_due)
