-- Asks at the start of a round whether it may end with a request, and keeps a place for that request if so: one in the
-- pace, and one among the requests under way. A gate that is not ok keeps none of its pace: its probes are few.
--
-- KEYS  1 gate
-- ARGV  1 token of who asks, 8 characters  2 life_ms: when the request is over, or its process is dead
--       3 rate: most requests a second, 0 learned alone, negative no limit  4 in_flight: most under way, 0 learned
--       5 clock_back_ms: the clock went back, if it was seen so far ahead of now, and no time is known any more
-- Returns { 'go' | 'rate' | 'in_flight' | 'closed', now_ms, wait_ms, the fields }: until the request may go out, or until
-- it is worth asking again
local gate, token = KEYS[1], ARGV[1]
local most, most_under_way, clock_back_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local fields = redis.call('HMGET', gate, 'state', 'generation', 'attempts', 'not_before', 'probe_until', 'moved', 'limit',
  'limit_at', 'reason', 'error', 'lone', 'paused', 'pace', 'flight', 'requests', 'seen', 'limits', 'suppression')
local time = redis.call('TIME')
local now = math.floor(time[1] * 1000 + time[2] / 1000)
local pace, flight, requests = known_flow(fields[13], fields[14], fields[15], fields[16], now, clock_back_ms)

local function answer(what, wait_ms)
  fields[13], fields[14], fields[15] = written(pace, PACE), written(flight, FLIGHT), requests
  fields[17] = ARGV[3] .. ' ' .. ARGV[4] -- whoever only looks knows by it what the workers are configured with
  -- A first write that can only shrink: a server that is full refuses a script whose first write could grow it.
  redis.call('HDEL', gate, 'none')
  redis.call('HSET', gate, 'pace', fields[13], 'flight', fields[14], 'requests', requests, 'seen', number(now),
    'limits', fields[17])
  return { what, now, wait_ms, fields }
end

if fields[12] then
  return answer('closed', 0)
end
local start_ms = 0
local closed_ms = math.max(tonumber(fields[4] or '0'), tonumber(fields[5] or '0')) - now
if closed_ms > 0 and tonumber(fields[6] or '0') <= now + clock_back_ms then
  return answer('closed', closed_ms)
end
if not fields[1] or fields[1] == 'ok' then
  local under_way = #requests / ENTRY
  local room
  if most_under_way > 0 then
    room = under_way < most_under_way
  else
    room = flight_ask(flight, now, under_way)
  end
  if not room then
    local places = most_under_way > 0 and most_under_way or flight.limit
    local each = math.max(flight.mean, 20) / places / 2
    pace.turn = math.min(math.max(pace.turn, now) + each, now + math.max(flight.mean, 20) / 2)
    return answer('in_flight', math.ceil(pace.turn - now))
  end
  local denied_ms
  denied_ms, start_ms = pace_ask(pace, now, most)
  if denied_ms > 0 then
    return answer('rate', denied_ms)
  end
end
requests = requests .. token .. string.format('%013.0f', now + ARGV[2])
return answer('go', start_ms)
