-- The fleet's pace and its limit of requests under way, for the gate's scripts that come after this text: the same as
-- worker/core/rate.py and worker/core/concurrency.py, line by line and in their order.

local function number(value)
  return string.format('%.17g', value)
end

-- A state as it is kept: its numbers, in this order, with a space between.
local function read(text, names)
  local found, i = {}, 0
  for word in string.gmatch(text or '', '%S+') do
    i = i + 1
    if names[i] then
      found[names[i]] = tonumber(word)
    end
  end
  if i ~= #names then
    found = {}
  end
  for _, name in ipairs(names) do
    found[name] = found[name] or 0
  end
  return found
end

local function written(state, names)
  local words = {}
  for i, name in ipairs(names) do
    words[i] = number(state[name])
  end
  return table.concat(words, ' ')
end

local PACE = { 'rate', 'tat', 'turn', 'ceiling', 'stated', 'stated_at', 'window', 'bound', 'bound_at',
  'confirmed', 'before', 'clean', 'since', 'total', 'excess' }
local FLIGHT = { 'limit', 'settled', 'peak', 'bad', 'began', 'count', 'sum', 'done', 'level', 'mean', 'variance',
  'least', 'best', 'best_limit', 'refused', 'refused_at', 'high', 'raised', 'trial', 'speed' }

local function lead_ms(interval)
  return math.min(math.max(2 * interval, 20), 100)
end

local function rate_limit(pace, most)
  if most < 0 then
    return 0
  end
  if most > 0 and (pace.rate <= 0 or most < pace.rate) then
    return most
  end
  return pace.rate
end

-- Returns how long to wait before asking again, 0 if a place was taken; and how long until the request may go out.
local function pace_ask(pace, now, most)
  local rate = rate_limit(pace, most)
  if rate <= 0 then
    return 0, 0
  end
  local interval = 1000 / rate
  if pace.tat > now then
    pace.bound = pace.bound + 1
    if pace.bound_at == 0 then
      pace.bound_at = now
    end
  end
  local free = pace.tat - lead_ms(interval)
  if now >= free then
    local start = math.max(pace.tat, now)
    pace.tat = start + interval
    if pace.total == 0 then
      pace.since = math.max(pace.since, start - 1000)
    end
    return 0, math.ceil(start - now)
  end
  pace.turn = math.min(math.max(pace.turn + interval / 2, free), free + 1000)
  return math.ceil(pace.turn - now), 0
end

local function pace_give_back(pace, most)
  local rate = rate_limit(pace, most)
  if rate > 0 then
    pace.tat = pace.tat - 1000 / rate
  end
end

local function pace_raise(pace, now, most)
  pace.clean = pace.clean + 1
  if pace.rate <= 0 then
    return
  end
  if pace.ceiling <= 0 then
    pace.rate = pace.rate + pace.rate * 0.5
  elseif pace.clean > 18 then
    pace.rate = pace.rate + pace.ceiling * 0.05 * (pace.clean - 18)
  end
  if pace.stated > 0 and now - pace.stated_at <= 60000 then
    pace.rate = math.min(pace.rate, pace.stated)
  end
  if most > 0 then
    pace.rate = math.min(pace.rate, most)
  end
end

local function pace_end_first_rest(pace)
  if pace.ceiling <= 4 then
    pace.ceiling = 0
  end
  pace.clean = pace.ceiling >= 10 and -4 or 14
end

local function pace_roll(pace, now, most)
  local length = 1000
  if pace.rate > 0 then
    length = math.max(length, 2000 / pace.rate)
  end
  local passed = now - pace.window
  if passed < length then
    return
  end
  if pace.clean <= -5 then
    pace_end_first_rest(pace)
  end
  local due = rate_limit(pace, most) * passed / 1000
  local binds = pace.bound > 0 and pace.confirmed > 0 and pace.confirmed + 1 >= due * 0.8
  if binds then
    pace.excess = pace.excess + math.max(0, pace.confirmed - pace.ceiling * passed / 1000)
    pace_raise(pace, now, most)
  end
  if pace.bound <= 0 or passed >= 2 * length then
    pace.bound_at = 0
  end
  if not binds or passed >= 2 * length then
    pace.since, pace.total, pace.excess = now, 0 - pace.rate, 0
  end
  pace.before = passed < 2 * length and pace.confirmed or 0
  pace.window, pace.bound, pace.confirmed = now, 0, 0
end

local function pace_confirm(pace, now, most, latency)
  pace_roll(pace, now, most)
  pace.confirmed = pace.confirmed + 1
  if now - latency >= math.min(pace.since + 400, pace.window) then
    pace.total = pace.total + 1
  elseif pace.clean <= -5 then
    pace.ceiling = pace.ceiling + 1
    pace.rate = pace.rate + 0.96
  end
end

local function pace_state(pace, now, rate)
  if rate ~= pace.stated then
    pace.rate, pace.ceiling = rate, rate
  end
  pace.stated, pace.stated_at = rate, now
end

local function pace_rest(pace, now, wait, most)
  local rate = rate_limit(pace, most)
  if rate > 0 then
    local interval = 1000 / rate
    pace.tat = math.max(pace.tat, now + math.max(wait, interval))
  end
end

local function pace_lately(pace, now)
  return pace.confirmed + pace.before * math.max(0, 1 - (now - pace.window) / 1000)
end

local function pace_estimate_first(pace, lately)
  pace.ceiling = lately
  pace.rate = math.max(lately, 1) * 0.96
  pace.clean = -5
end

local function pace_estimate(pace, now, base, wait, latency)
  local passed = math.max(now - pace.since - latency, 1)
  local excess = pace.excess + math.max(0, pace.confirmed - pace.ceiling * (now - pace.window) / 1000)
  local average = pace.total * 1000 / passed
  if wait > 2000 and passed >= 2000 then
    pace.ceiling = math.min(average, base)
  elseif pace.ceiling <= 0 or excess > math.max(pace.ceiling, 2) then
    pace.ceiling = math.min(math.max(average, pace_lately(pace, now) * 0.95, base * 0.65), base)
  elseif pace.clean > 18 then
    local raised = math.min(pace.ceiling * (1 + 0.4), pace.before * 0.95)
    pace.ceiling = math.min(math.max(pace.ceiling, raised), base)
  elseif passed >= 1000 then
    local least = base * (passed >= 5000 and 0.94 or 0.65)
    if pace.clean < 0 then
      local early = average < base * 0.7 and 1 or 0.85
      least = math.max(least, math.min(pace.total, base * early))
    end
    pace.ceiling = math.min(math.max(average, least), base)
  else
    pace.ceiling = base * 0.9
  end
  pace.rate = math.max(pace.ceiling * 0.96, 0.1)
  local sure = passed >= 3000 or pace.ceiling >= base * 0.9
  pace.clean = sure and 0 or 12
end

local function pace_lower(pace, now, most, wait, latency)
  if most < 0 or pace.confirmed + pace.before <= 0 then
    return false
  end
  local base = rate_limit(pace, most)
  local rest = wait
  if base <= 0 then
    local lately = pace_lately(pace, now)
    pace_estimate_first(pace, pace.before > 0 and math.min(lately, pace.before) or lately)
    rest = math.max(rest, pace.window + 1000 - now)
  else
    if now - pace.since < 1000 then
      rest = math.max(rest, pace.since + 1000 - now)
    end
    pace_estimate(pace, now, base, wait, latency)
  end
  pace_rest(pace, now, rest, most)
  pace.turn, pace.before, pace.confirmed, pace.bound, pace.total, pace.excess = 0, 0, 0, 0, 0, 0
  pace.since, pace.window = now, now + rest
  return true
end

local function flight_begin(flight, now, limit)
  flight.limit, flight.began = limit, now
  flight.count, flight.sum, flight.done, flight.level, flight.peak, flight.bad = 0, 0, 0, 0, 0, 0
end

local function flight_ask(flight, now, under_way)
  if flight.limit <= 0 then
    flight.limit, flight.began = 4, now
  elseif flight.limit <= 4 and flight.settled <= 0 and flight.done <= 0 and now - flight.began >= 50 then
    flight.limit = 8
  end
  flight.peak = math.max(flight.peak, under_way + 1)
  return under_way < flight.limit
end

local function flight_decrease(flight)
  flight.limit = math.max(1, math.floor(flight.limit * 0.9))
  flight.raised = 0
end

local function flight_refuse(flight, now)
  flight.refused, flight.refused_at = flight.limit, now
  if flight.limit > 4 then
    flight_decrease(flight)
  end
end

local function flight_double(flight, latency)
  local level = flight.level / flight.count
  local bound = flight.peak >= flight.limit
  if bound and level < flight.limit * 0.7 then
    return
  end
  flight.least = flight.least <= 0 and latency or math.min(flight.least, latency)
  local throughput = level / math.max(latency, 0.001)
  local better = throughput > flight.best * 1.05
  local worse = throughput < flight.best * 0.95 or latency >= flight.least * 4
  if better then
    flight.best, flight.best_limit, flight.mean = throughput, level, latency
  end
  if level < flight.best_limit * 0.7 then
    return
  end
  if worse or flight.limit >= 1024 or (not bound and not better) then
    flight.limit = math.max(4, math.floor(flight.best_limit + 0.5))
    flight.settled = 1
  elseif bound then
    flight.limit = math.min(1024, flight.limit * 2)
  end
end

local function flight_judge_trial(flight, latency, speed)
  if flight.high <= 0 or flight.level > flight.count * flight.limit * 1.2 then
    flight.high = 1
    return
  end
  if latency > flight.least * 1.2 or speed < flight.speed * 0.9 then
    flight.limit, flight.least = flight.trial, math.max(latency, flight.mean)
  end
  flight.mean = latency
  flight.variance, flight.trial, flight.high, flight.raised = 0, 0, 0, 0
end

local function flight_wait_and_see(flight, now, latency, bound)
  flight.high = flight.high + 1
  flight.raised = 0
  if flight.high > 2 or (flight.high > 1 and not bound) then
    flight.mean = latency
    flight.variance, flight.high, flight.refused = 0, 0, 0
  elseif flight.high > 1 then
    flight_refuse(flight, now)
  end
end

local function flight_go_on(flight, now, latency, bound)
  flight.high, flight.raised = 0, 0
  if flight.refused > 0 and now - flight.refused_at >= 5000 then
    flight.refused = 0
  end
  local room = flight.limit < 1024 and (flight.refused <= 0 or flight.limit + 1 < flight.refused)
  if bound and room and latency <= flight.mean then
    flight.limit = flight.limit + 1
    flight.raised = 1
  end
  local off = latency - flight.mean
  flight.mean = flight.mean + 0.4 * off
  flight.variance = 0.6 * (flight.variance + 0.4 * off * off)
  flight.least = math.min(flight.least, latency)
end

local function flight_step(flight, now, latency, speed)
  if flight.mean <= 0 then
    flight.mean, flight.least = latency, latency
    return
  end
  if flight.trial > 0 then
    flight_judge_trial(flight, latency, speed)
    return
  end
  local bound = flight.peak >= flight.limit
  local far_above = latency >= flight.mean + math.max(2.5 * math.sqrt(flight.variance), flight.mean * 0.1, 10)
  if far_above and flight.raised > 0 then
    flight_refuse(flight, now)
  elseif bound and latency >= math.max(flight.least * 1.5, flight.least + 25) and flight.limit > 4 then
    flight.trial, flight.speed, flight.high = flight.limit, speed, 0
    flight.limit = math.max(4, math.floor(flight.limit * flight.least / latency))
  elseif far_above then
    flight_wait_and_see(flight, now, latency, bound)
  else
    flight_go_on(flight, now, latency, bound)
  end
end

local function flight_end_round(flight, now)
  local passed = now - flight.began
  local length = math.max(flight.mean, 50)
  if flight.limit <= 0 or passed < length or (flight.count <= 0 and flight.bad <= 0) then
    return
  end
  if flight.bad <= 0 and flight.count * 2 < flight.limit and passed < length * 3 then
    return
  end
  local latency = flight.count > 0 and flight.sum / flight.count or 0
  local first = flight.settled <= 0 and flight.best <= 0 and flight.bad <= 0
  if first and flight.done < 32 and passed < 1000 and latency < 50 then
    return
  end
  if flight.bad > 0 then
    flight_decrease(flight)
    flight.settled, flight.trial = 1, 0
  elseif flight.settled <= 0 then
    flight_double(flight, latency)
  else
    flight_step(flight, now, latency, flight.done / passed)
  end
  flight_begin(flight, now, flight.limit)
end

local function flight_succeed(flight, now, latency, under_way)
  flight.done = flight.done + 1
  if now - latency >= flight.began then
    flight.count = flight.count + 1
    flight.sum = flight.sum + latency
    flight.level = flight.level + under_way
  end
  flight_end_round(flight, now)
end

local function flight_fail(flight, now)
  flight.bad = 1
  flight_end_round(flight, now)
end

-- The requests under way, in one text: 8 characters that name each, and 13 of the time (Unix ms) by which it is over.
-- They are in the order of that time, so those whose process died fall out in front.
local ENTRY = 21

local function still_under_way(requests, now)
  local first = 1
  while first < #requests and tonumber(string.sub(requests, first + 8, first + ENTRY - 1)) <= now do
    first = first + ENTRY
  end
  return string.sub(requests, first)
end

local function without(requests, token)
  for first = 1, #requests, ENTRY do
    if string.sub(requests, first, first + 7) == token then
      return string.sub(requests, 1, first - 1) .. string.sub(requests, first + ENTRY), true
    end
  end
  return requests, false
end

-- What is kept of all three, at this time; nothing of it is known any more if the clock went back.
local function known_flow(pace, flight, requests, seen, now, clock_back_ms)
  local p, f, r = read(pace, PACE), read(flight, FLIGHT), requests or ''
  if tonumber(seen or '0') > now + clock_back_ms then
    p.tat, p.turn, p.bound, p.bound_at, p.confirmed, p.before, p.total, p.excess = 0, 0, 0, 0, 0, 0, 0, 0
    p.window, p.since, p.stated_at = now, now, now
    f.began, f.refused_at = now, now
    f.count, f.sum, f.done, f.level = 0, 0, 0, 0
    r = ''
  end
  return p, f, still_under_way(r, now)
end
