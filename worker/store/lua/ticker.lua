-- Takes or renews the lease of the fleet's ticker.
--
-- KEYS  1 ticker
-- ARGV  1 token of the caller  2 lease_ms
-- Returns 0 if another holds it, 1 if it was renewed, 2 if it was taken
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
-- The first write can only shrink: a full server refuses a script whose first write could grow it, and without a
-- ticker nothing would ever drain it.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return holder and 1 or 2
