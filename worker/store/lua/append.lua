-- Appends entries to the log of one partition, even if Redis is full: they are in the inbox until they have moved, so a
-- Redis that the inbox filled can drain only if they may move.
--
-- KEYS  1 events
-- ARGV  for each entry the number of its fields and values, then these in turn
-- Returns how many were appended
local events = KEYS[1]

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('XTRIM', events, 'MINID', '0-0')

local at, appended = 1, 0
while at <= #ARGV do
  local items = tonumber(ARGV[at])
  redis.call('XADD', events, '*', unpack(ARGV, at + 1, at + items))
  at, appended = at + 1 + items, appended + 1
end
return appended
