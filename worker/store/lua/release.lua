-- Releases the lease of one partition, if it is still held; changes nothing else.
--
-- KEYS  1 lease  2 partition
-- ARGV  1 token
-- Returns 1 if the lease was released, 0 if another worker holds it or nobody does
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
-- Both writes only shrink: a full server runs them.
redis.call('DEL', KEYS[1])
redis.call('HDEL', KEYS[2], 'holder')
return 1
