-- Asks whether a request may go out now. While the endpoint is away one probe at a time may. While deliveries are paused
-- none may, and none before the time until which the endpoint asked to wait, whatever the state.
--
-- KEYS  1 gate
-- ARGV  1 token of the caller  2 probe_ms: how long the right to probe lasts
--       3 clock_back_ms: if the gate moved this far ahead of the clock, the clock went back and waits mean nothing
--       4 generation of the gate under which a place was taken: an ok gate that has moved since lets no request out
--       5 suppression that the request was made under: if somebody was erased since, it must not go out
-- Returns { 'open' | 'probe' | 'closed', generation, attempts, single_rejections, wait_ms }
local gate = KEYS[1]
local known = redis.call('HMGET', gate, 'state', 'generation', 'attempts', 'lone', 'not_before', 'probe_until', 'moved',
  'paused', 'suppression')
local generation, attempts = tonumber(known[2] or '0'), tonumber(known[3] or '0')
local single_rejections = tonumber(known[4] or '0')
if known[8] or (known[9] or '') ~= ARGV[5] then
  return { 'closed', generation, attempts, single_rejections, 0 }
end
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local wait_ms = math.max(tonumber(known[5] or '0'), tonumber(known[6] or '0')) - now_ms
if wait_ms > 0 and tonumber(known[7] or '0') <= now_ms + ARGV[3] then
  return { 'closed', generation, attempts, single_rejections, wait_ms }
end
if not known[1] or known[1] == 'ok' then
  local moved = ARGV[4] ~= '' and tonumber(ARGV[4]) ~= generation
  return { moved and 'closed' or 'open', generation, attempts, single_rejections, 0 }
end
-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', gate, 'probe_until', 'not_before')
redis.call('HSET', gate, 'probe', ARGV[1], 'probe_until', string.format('%.0f', now_ms + ARGV[2]),
  'moved', string.format('%.0f', now_ms))
return { 'probe', generation, attempts, single_rejections, 0 }
