-- Counts the looks at this Redis. Counts only rise: whoever has seen a greater one knows that Redis has lost what it
-- had accepted in between, as one does that comes back empty or from an older backup.
--
-- KEYS  1 config
-- ARGV  1 seen: the greatest count that the caller was ever given, 0 at first
-- Returns { beat, lost_from_ms, lost_at_ms, partitions }: when the last look was that Redis remembers (0 if none) and
--   when this one is, where it went back, else 0 and 0; and how many partitions are recorded, 0 if none are, -1 while
--   that number is being changed
local config, seen = KEYS[1], tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local known = redis.call('HMGET', config, 'beat', 'beat_at', 'lost_from', 'partitions',
  'repartitioning')
local beat, lost_from, lost_at = tonumber(known[1] or '0'), 0, 0

-- A first write that can only shrink: a server that is full refuses a script whose first write could grow it.
redis.call('HDEL', config, 'none')
if beat < seen then
  lost_from, lost_at = tonumber(known[2] or '0'), now_ms
  redis.call('HSET', config, 'lost_from', known[3] or string.format('%.0f', lost_from),
    'lost_at', string.format('%.0f', now_ms))
  beat = seen
end
redis.call('HSET', config, 'beat', string.format('%.0f', beat + 1), 'beat_at', string.format('%.0f', now_ms))
return { beat + 1, lost_from, lost_at, known[5] and -1 or tonumber(known[4] or '0') }
