-- Closes both logs of one partition, so that nothing can be appended to them: a text takes each stream's place, and XADD
-- is refused because of the wrong type. Only an empty partition is closed.
--
-- KEYS  1 lease  2 events  3 bulk  4 late  5 dead  6 dead:pairs  7..14 pending of each class  15 parked
-- ARGV  1 how the text of every closed log begins  2 text; '' to look only
-- Returns 'closed', also if it was closed before; 'open' if it could be closed; else what is in the way: 'wrong-type'
-- | 'lease' | 'events' | 'pending' | 'late' | 'dead' | 'parked'
local events, bulk = KEYS[2], KEYS[3]
if redis.call('TYPE', events)['ok'] == 'string' then
  local text = redis.call('GET', events)
  if string.sub(text, 1, #ARGV[1]) ~= ARGV[1] then
    return 'wrong-type'
  end
  if ARGV[2] ~= '' then
    -- Written again, because who waits for replicas waits for what was written last. The first write can only shrink.
    redis.call('DEL', events)
    redis.call('SET', events, text)
  end
  return 'closed'
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'lease'
elseif redis.call('XLEN', events) + redis.call('XLEN', bulk) > 0 then
  return 'events'
elseif redis.call('EXISTS', unpack(KEYS, 7, 14)) > 0 then
  return 'pending'
elseif redis.call('HLEN', KEYS[4]) > 0 then
  return 'late'
elseif redis.call('HLEN', KEYS[5]) + redis.call('HLEN', KEYS[6]) > 0 then
  return 'dead'
elseif redis.call('HLEN', KEYS[15]) > 0 then
  return 'parked'
end
if ARGV[2] == '' then
  return 'open'
end
for _, log in ipairs({ bulk, events }) do
  redis.call('DEL', log)
  redis.call('SET', log, ARGV[2])
end
return 'closed'
