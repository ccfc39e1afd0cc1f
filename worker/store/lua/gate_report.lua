-- Moves the gate by what became of a request, if the gate is still the one that the request went through: of eight
-- requests that fail at once one counts, and a late success reopens nothing.
--
-- KEYS  1 gate
-- ARGV  1 generation the request went through  2 what: confirmed | answered | lone | retry | hold | too_large
--       3 delay_ms until the next probe  4 reason (of a hold)  5 error  6 limit: most records that may pass (too_large)
--       7 lone_max: lone rejections in a row that are no poison any more
-- Returns the gate's state after it: ok | backing_off | held
local gate, what = KEYS[1], ARGV[2]
local known = redis.call('HMGET', gate, 'state', 'generation', 'attempts', 'lone', 'reason')
local state, generation = known[1] or 'ok', tonumber(known[2] or '0')
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)

-- A first write that can only shrink: a server that is full refuses a script whose first write could grow it.
redis.call('HDEL', gate, 'none')

local lone = tonumber(known[4] or '0')
if what == 'confirmed' then
  lone = 0
elseif what == 'lone' then
  lone = lone + 1
end
redis.call('HSET', gate, 'lone', lone)
if what == 'too_large' then
  redis.call('HSET', gate, 'limit', ARGV[6], 'limit_at', string.format('%.0f', now_ms))
end
if tonumber(ARGV[1]) ~= generation then
  return state
end

local function close(as, reason, attempts)
  redis.call('HSET', gate, 'state', as, 'reason', reason, 'error', ARGV[5], 'attempts', attempts,
    'not_before', string.format('%.0f', now_ms + ARGV[3]), 'moved', string.format('%.0f', now_ms),
    'generation', string.format('%.0f', generation + 1))
  if state ~= as then
    redis.call('HSET', gate, 'since', string.format('%.0f', now_ms))
  end
  redis.call('HDEL', gate, 'probe', 'probe_until')
  return as
end

if what == 'retry' then
  return close('backing_off', '', tonumber(known[3] or '0') + 1)
elseif what == 'hold' then
  return close('held', ARGV[4], tonumber(known[3] or '0'))
elseif what == 'lone' and lone >= tonumber(ARGV[7]) then
  return close('held', 'every_record_rejected', tonumber(known[3] or '0'))
elseif what == 'answered' and state == 'held' and known[5] == 'every_record_rejected' then
  return close('held', 'every_record_rejected', tonumber(known[3] or '0'))
elseif state ~= 'ok' then
  redis.call('HSET', gate, 'state', 'ok', 'reason', '', 'attempts', 0,
    'since', string.format('%.0f', now_ms), 'generation', string.format('%.0f', generation + 1))
  redis.call('HDEL', gate, 'probe', 'probe_until', 'not_before')
end
return 'ok'
