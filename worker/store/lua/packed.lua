-- A call with more arguments than a request may have gives them as one: a list, packed by MessagePack.
local ARGV = #ARGV == 1 and cmsgpack.unpack(ARGV[1]) or ARGV

