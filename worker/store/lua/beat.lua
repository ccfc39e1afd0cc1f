-- Counts the checks of this Redis. The count only rises: a process that saw a greater one knows that Redis came back
-- empty or from an older backup, and has lost what it accepted in between.
--
-- KEYS  1 config
-- ARGV  1 seen: the greatest count that the caller was ever given, 0 at first
-- Returns { beat, lost_from_ms, lost_at_ms, partitions }: if the count went back, the time of the last check that Redis
--   remembers (0 if none) and of this one, else 0 and 0; the recorded number of partitions, 0 if none is recorded, -1
--   while it is being changed
local config, seen = KEYS[1], tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local known = redis.call('HMGET', config, 'beat', 'beat_at', 'lost_from', 'partitions',
  'repartitioning')
local beat, lost_from, lost_at = tonumber(known[1] or '0'), 0, 0

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', config, 'none')
if beat < seen then
  lost_from, lost_at = tonumber(known[2] or '0'), now_ms
  redis.call('HSET', config, 'lost_from', known[3] or string.format('%.0f', lost_from),
    'lost_at', string.format('%.0f', now_ms))
  beat = seen
end
redis.call('HSET', config, 'beat', string.format('%.0f', beat + 1), 'beat_at', string.format('%.0f', now_ms))
return { beat + 1, lost_from, lost_at, known[5] and -1 or tonumber(known[4] or '0') }
