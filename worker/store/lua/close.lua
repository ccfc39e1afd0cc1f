-- Closes the log of one partition, so that nothing can be appended: a text replaces the stream, and XADD is refused
-- because of the wrong type. Only an empty partition is closed.
--
-- KEYS  1 lease  2 events  3 pending  4 late  5 dead  6 dead:pairs
-- ARGV  1 text
-- Returns 'closed', also if it was closed before; else what is in the way: 'lease' | 'events' | 'pending' | 'late' | 'dead'
local events = KEYS[2]
if redis.call('TYPE', events)['ok'] == 'string' then
  return 'closed'
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'lease'
elseif redis.call('XLEN', events) > 0 then
  return 'events'
elseif redis.call('HLEN', KEYS[3]) > 0 then
  return 'pending'
elseif redis.call('HLEN', KEYS[4]) > 0 then
  return 'late'
elseif redis.call('HLEN', KEYS[5]) + redis.call('HLEN', KEYS[6]) > 0 then
  return 'dead'
end
redis.call('DEL', events)
redis.call('SET', events, ARGV[1])
return 'closed'
