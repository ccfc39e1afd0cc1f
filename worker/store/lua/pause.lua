-- Pauses all deliveries, or lets them go on. Beside the gate's state, not in it: what a request that is on its way
-- reports moves the gate as ever, and the gate goes on from there.
--
-- KEYS  1 gate
-- ARGV  1 'pause' | 'resume'
-- Returns when the pause began (Unix ms) of a pause that was there before, 0 where there was none
local gate = KEYS[1]
local since = tonumber(redis.call('HGET', gate, 'paused') or '0')

-- A first write that can only shrink: a server that is full refuses a script whose first write could grow it.
redis.call('HDEL', gate, 'none')
if ARGV[1] == 'resume' then
  redis.call('HDEL', gate, 'paused')
elseif since == 0 then
  local time = redis.call('TIME')
  redis.call('HSET', gate, 'paused', string.format('%.0f', math.floor(time[1] * 1000 + time[2] / 1000)))
end
return since
