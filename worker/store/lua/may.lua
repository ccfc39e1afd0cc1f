-- Asks which commands the caller may not run; runs none of them. Redis can be asked since version 7.
--
-- KEYS  1 a key that the commands would be run on
-- ARGV  1 how many names of commands follow that take a key; behind them those that take none
-- Returns nil if this Redis cannot be asked, else the names of the refused ones, unknown ones among them
if not redis.acl_check_cmd then
  return false
end
local refused = {}
local function ask(name, ...)
  local known, may = pcall(redis.acl_check_cmd, name, ...)
  if not known or not may then
    refused[#refused + 1] = name
  end
end
for i = 2, tonumber(ARGV[1]) + 1 do
  ask(ARGV[i], KEYS[1])
end
for i = tonumber(ARGV[1]) + 2, #ARGV do
  ask(ARGV[i])
end
ask('evalsha', '', '0') -- with its number of keys: Valkey 9.1.2 looks for it unasked, and crashes without
ask('rename', KEYS[1], KEYS[1])
ask('script', 'load', '')
ask('xread', 'streams', KEYS[1], '0')
return refused
