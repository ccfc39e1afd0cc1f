-- Marks pairs that unanswered requests may still change. Needs no token, because it settles nothing: a worker that has
-- lost its lease can still mark what it sent.
--
-- KEYS  1 late  2 partition  3 events
-- ARGV  pair, upsert_until_ms, delete_until_ms, and so on; 0 if no request has that op
-- Returns how many pairs were marked
local late, partition = KEYS[1], KEYS[2]

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('XTRIM', KEYS[3], 'MINID', '0-0')

local due = tonumber(redis.call('HGET', partition, 'late_due') or 'inf')
for i = 1, #ARGV, 3 do
  local upsert, delete = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local known = redis.call('HGET', late, ARGV[i])
  if known then
    local known_upsert, known_delete = string.match(known, '^(%d+),(%d+)$')
    upsert, delete = math.max(upsert, tonumber(known_upsert)), math.max(delete, tonumber(known_delete))
  end
  redis.call('HSET', late, ARGV[i], string.format('%.0f,%.0f', upsert, delete))
  due = math.min(due, math.max(upsert, delete))
end
if #ARGV > 0 then
  redis.call('HSET', partition, 'late_due', string.format('%.0f', due))
end
return #ARGV / 3
