-- Removes what one partition stores about pairs, for the holder of its lease. What waited is counted as forgotten. The
-- settle that releases the lease updates the times of what is left.
--
-- KEYS  1 lease  2 events  3 bulk  4 late  5 ledger:new  6 ledger:old  7 dead:pairs  8 totals  9..16 pending of each class
--       17 parked
-- ARGV  1 token  2 number of pairs  3 number of entries of the log
--       4.. pairs, then ids of entries of the log, then of the bulk lane's log
-- Returns { 'forgotten', entries, pending and parked, late, ledger, dead_pairs }: how many of each were removed; or
--   { 'fenced' }
local late = KEYS[4]
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'fenced' }
end
local last = 3 + tonumber(ARGV[2])
local last_live = last + tonumber(ARGV[3])
local entries, waited, marks, ledger, dead_pairs, changes = 0, 0, 0, 0, 0, 0
for i = 4, last do
  for waits = 9, 17 do
    local state = redis.call('HGET', KEYS[waits], ARGV[i])
    if state then
      changes = changes + (string.match(state, '\31[du]%d') and 2 or 1)
      waited = waited + redis.call('HDEL', KEYS[waits], ARGV[i])
    end
  end
  marks = marks + redis.call('HDEL', late, ARGV[i])
  local known = redis.call('HDEL', KEYS[5], ARGV[i]) + redis.call('HDEL', KEYS[6], ARGV[i])
  ledger = ledger + math.min(known, 1)
  dead_pairs = dead_pairs + redis.call('HDEL', KEYS[7], ARGV[i])
end
for i = last + 1, #ARGV do
  entries = entries + redis.call('XDEL', i <= last_live and KEYS[2] or KEYS[3], ARGV[i])
end
-- An entry is counted as an event when it is read, which these never were; a state was counted then.
if entries > 0 then
  redis.call('HINCRBY', KEYS[8], 'events', entries)
end
if entries + changes > 0 then
  redis.call('HINCRBY', KEYS[8], 'forgotten', entries + changes)
end
-- Written in any case, because who waits for replicas waits for what was written last.
redis.call('HDEL', KEYS[8], 'none')
redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')
return { 'forgotten', entries, waited, marks, ledger, dead_pairs }
