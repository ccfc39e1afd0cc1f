-- Removes dead letters for good.
--
-- KEYS  1 dead  2 dead:pairs
-- ARGV  id of a letter, its pair, and so on; the pair is '' if the entry was malformed
-- Returns how many letters were there
local dead, dead_pairs = KEYS[1], KEYS[2]
local removed = 0
for i = 1, #ARGV, 2 do
  if redis.call('HDEL', dead, ARGV[i]) == 1 then
    removed = removed + 1
    local kept = ARGV[i + 1] ~= '' and redis.call('HGET', dead_pairs, ARGV[i + 1])
    if kept then
      local letters = tonumber(string.match(kept, '^%d+'))
      if letters > 1 then
        redis.call('HSET', dead_pairs, ARGV[i + 1], string.format('%.0f', letters - 1) .. string.match(kept, ';.*$'))
      else
        redis.call('HDEL', dead_pairs, ARGV[i + 1])
      end
    end
  end
end
return removed
