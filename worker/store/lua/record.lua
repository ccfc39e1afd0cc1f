-- Records fields of a hash that nobody has recorded yet, on a full server too.
--
-- KEYS  1 hash
-- ARGV  field and value in turn
-- Returns how many are new
-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', KEYS[1], 'none')
local new = 0
for i = 1, #ARGV, 2 do
  new = new + redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
return new
