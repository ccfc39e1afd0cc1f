-- Moves the gate by the outcome of a request, if the gate's generation is still the one that the request went through:
-- of eight requests that fail at once one counts, and a late success reopens nothing. Of every failure one thing counts:
-- how long the endpoint asked to wait. Nothing goes out before, whatever is reported later. It also frees the request's
-- place.
--
-- KEYS  1 gate
-- ARGV  1 generation the request went through
--       2 what: confirmed | answered | single_rejection | retry | limited | hold | too_large
--         | unused (no request went out)
--       3 delay_ms until the next probe  4 reason (of a hold)  5 error  6 limit: most records that may pass (too_large)
--       7 single_rejections_max: this many records rejected alone in a row are not poison: the endpoint refuses all
--       8 token of the request, '' if it had no place  9 latency_ms if it succeeded, else ''
--       10 overloaded: 1 if it failed in a way that too many requests cause
--       11 wait_ms that the endpoint asked for, unless it confirmed  12 stated: requests a second that it allows, 0 if it does not say
--       13 rest_ms: how long it says that it allows none  14 rate, 15 in_flight, 16 clock_back_ms: as in gate_ask.lua
-- Returns the gate's state after it: ok | backing_off | held
local gate, what, token = KEYS[1], ARGV[2], ARGV[8]
local wait_ms, stated, rest_ms = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local most, most_under_way = tonumber(ARGV[14]), tonumber(ARGV[15])
local known = redis.call('HMGET', gate, 'state', 'generation', 'attempts', 'lone', 'reason', 'pace', 'flight', 'requests',
  'seen', 'probe', 'not_before', 'moved')
local state, generation = known[1] or 'ok', tonumber(known[2] or '0')
local current = tonumber(ARGV[1]) == generation
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local clock_back_ms = tonumber(ARGV[16])
local pace, flight, requests = known_flow(known[6], known[7], known[8], known[9], now_ms, clock_back_ms)
local not_before = tonumber(known[12] or '0') <= now_ms + clock_back_ms and tonumber(known[11] or '0') or 0

-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', gate, 'none')

local under_way, there = #requests / ENTRY, false
if token ~= '' then
  requests, there = without(requests, token)
end
if there and what == 'unused' and current and state == 'ok' then
  pace_give_back(pace, most)
elseif there and ARGV[9] ~= '' then
  pace_confirm(pace, now_ms, most, tonumber(ARGV[9]))
  if most_under_way <= 0 then
    flight_succeed(flight, now_ms, tonumber(ARGV[9]), under_way)
  end
elseif there and ARGV[10] == '1' and current and state == 'ok' and most_under_way <= 0 then
  flight_fail(flight, now_ms)
end
if most >= 0 and stated > 0 then
  pace_state(pace, now_ms, stated)
end
if rest_ms > 0 and what ~= 'limited' then
  if rate_limit(pace, most) > 0 then
    pace_rest(pace, now_ms, rest_ms, most)
  else
    pace_lower(pace, now_ms, most, rest_ms, 0)
  end
end
local lowered = what == 'limited' and current and state == 'ok'
  and pace_lower(pace, now_ms, most, wait_ms, flight.mean)
redis.call('HSET', gate, 'pace', written(pace, PACE), 'flight', written(flight, FLIGHT), 'requests', requests,
  'seen', number(now_ms))

if what == 'unused' then
  if known[10] == token then
    redis.call('HDEL', gate, 'probe', 'probe_until')
  end
  return state
end
local single_rejections = tonumber(known[4] or '0')
if what == 'confirmed' then
  single_rejections = 0
elseif what == 'single_rejection' then
  single_rejections = single_rejections + 1
end
redis.call('HSET', gate, 'lone', single_rejections)
if what == 'too_large' then
  redis.call('HSET', gate, 'limit', ARGV[6], 'limit_at', string.format('%.0f', now_ms))
end
if not current then
  local failed = what == 'retry' or what == 'limited' or what == 'hold'
  if failed and wait_ms > 0 and now_ms + wait_ms > not_before then
    redis.call('HSET', gate, 'not_before', string.format('%.0f', now_ms + wait_ms),
      'moved', string.format('%.0f', now_ms))
  end
  return state
end

local function close(as, reason, attempts)
  redis.call('HSET', gate, 'state', as, 'reason', reason, 'error', ARGV[5], 'attempts', attempts,
    'not_before', string.format('%.0f', math.max(not_before, now_ms + ARGV[3])), 'moved', string.format('%.0f', now_ms),
    'generation', string.format('%.0f', generation + 1))
  if state ~= as then
    redis.call('HSET', gate, 'since', string.format('%.0f', now_ms))
  end
  redis.call('HDEL', gate, 'probe', 'probe_until')
  return as
end

if lowered and wait_ms <= 2000 then
  redis.call('HSET', gate, 'error', ARGV[5], 'generation', string.format('%.0f', generation + 1))
  return state
elseif what == 'retry' or what == 'limited' then
  return close('backing_off', '', tonumber(known[3] or '0') + 1)
elseif what == 'hold' then
  return close('held', ARGV[4], tonumber(known[3] or '0'))
elseif what == 'single_rejection' and single_rejections >= tonumber(ARGV[7]) then
  return close('held', 'every_record_rejected', tonumber(known[3] or '0'))
elseif what == 'answered' and state == 'held' and known[5] == 'every_record_rejected' then
  return close('held', 'every_record_rejected', tonumber(known[3] or '0'))
elseif state ~= 'ok' then
  redis.call('HSET', gate, 'state', 'ok', 'reason', '', 'attempts', 0,
    'since', string.format('%.0f', now_ms), 'generation', string.format('%.0f', generation + 1))
  redis.call('HDEL', gate, 'probe', 'probe_until')
  if not_before <= now_ms then
    redis.call('HDEL', gate, 'not_before')
  end
end
return 'ok'
