-- Notes one thing in a hash for people, on a server that is full too.
--
-- KEYS  1 hash
-- ARGV  1 field  2 value
-- Returns 1 where the field is new, else 0
-- A first write that can only shrink: a server that is full refuses a script whose first write could grow it.
redis.call('HDEL', KEYS[1], 'none')
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
