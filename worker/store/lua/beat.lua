-- Counts the checks of this Redis, all together and those of each of a few groups of processes. A count only rises: a
-- process that saw a greater one knows that Redis came back empty or from an older backup, or that another server took
-- over without what this process saw, and has lost what it accepted in between. Others may have made up for all lost
-- checks meanwhile, so a process asks for the count of its group as well.
--
-- KEYS  1 config
-- ARGV  1 seen: the greatest count that the caller was ever given, 0 at first
--       2 group: of the caller
--       3 seen_own: the greatest count of its group that the caller was ever given, 0 at first
--       4 told_ms: if the caller's last check had no answer, what the one before said as noted_ms, else -1. The last one
--         may have found a loss, and taken up the counts that show it.
--       5 partitions: how many the caller's fleet uses, noted for those who read while the node of the configuration is away
-- Returns { beat, lost_from_ms, lost_at_ms, partitions, own, noted_ms }: if a count went back, the time of the last
--   check that Redis remembers (0 if none) and of this one, else 0 and 0; the recorded number of partitions, 0 if none is
--   recorded, -1 while it is being changed; the count of the caller's group; when a loss was last noted, 0 if none is
local config, seen, group = KEYS[1], tonumber(ARGV[1]), 'beat:' .. ARGV[2]
local seen_own, told_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local known = redis.call('HMGET', config, 'beat', 'beat_at', 'lost_from', 'partitions',
  'repartitioning', group, 'lost_at')
local beat, lost_from, lost_at, noted = tonumber(known[1] or '0'), 0, 0, tonumber(known[7] or '0')
local own, own_at = string.match(known[6] or '0 0', '^(%d+) (%d+)$')
own, own_at = tonumber(own), tonumber(own_at)

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', config, 'none')
if beat < seen or own < seen_own then
  lost_from, lost_at = tonumber(known[2] or '0'), now_ms
  if own < seen_own and own_at > 0 then lost_from = math.min(lost_from, own_at) end
  redis.call('HSET', config, 'lost_from', known[3] or string.format('%.0f', lost_from),
    'lost_at', string.format('%.0f', now_ms))
  beat, own, noted = math.max(beat, seen), math.max(own, seen_own), now_ms
elseif told_ms >= 0 and noted ~= 0 and noted ~= told_ms then
  lost_from, lost_at = tonumber(known[3] or '0'), noted
end
local at = string.format('%.0f', now_ms)
redis.call('HSET', config, 'beat', string.format('%.0f', beat + 1), 'beat_at', at,
  group, string.format('%.0f %.0f', own + 1, now_ms), 'fleet_partitions', ARGV[5])
return { beat + 1, lost_from, lost_at, known[5] and -1 or tonumber(known[4] or '0'), own + 1, noted }
