-- Pauses all deliveries, or resumes them. The pause is stored beside the gate's state: a request that is under way still
-- moves the gate, which continues from there.
--
-- KEYS  1 gate
-- ARGV  1 'pause' | 'resume'
-- Returns { before_ms, now_ms }: since when deliveries were paused before, and are paused now; 0 if they were not, or are
-- not
local gate = KEYS[1]
local before = tonumber(redis.call('HGET', gate, 'paused') or '0')
local now = 0

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', gate, 'none')
if ARGV[1] == 'resume' then
  -- A write if nothing was paused, too, because who waits for replicas waits for what was written last.
  redis.call('HSET', gate, 'paused', '0')
  redis.call('HDEL', gate, 'paused')
else
  now = before
  if before == 0 then
    local time = redis.call('TIME')
    now = math.floor(time[1] * 1000 + time[2] / 1000)
  end
  -- Written again if it was paused already, because who waits for replicas waits for what was written last.
  redis.call('HSET', gate, 'paused', string.format('%.0f', now))
end
return { before, now }
