-- Finds entries of a log that are gone although nobody read them: somebody trimmed it, or deleted from it. Redis counts
-- what was ever added (from 7.0 on), and `events` counts what was read; the rest must be in the log.
--
-- The script must have written before: a full server refuses a script whose first write could grow it.
-- Returns how many are gone, if they are the first since somebody acknowledged the last, until the field `untold_trimmed`
-- is removed: whoever logs the alarm does so. An answer that never came is given again. Else 0.
local function untold_trimmed(partition, logs, totals, now_ms)
  local added, length = nil, 0
  for _, log in ipairs(logs) do
    local info = redis.pcall('XINFO', 'STREAM', log)
    for i = 1, #info, 2 do
      if info[i] == 'entries-added' then
        added = (added or 0) + tonumber(info[i + 1])
      elseif info[i] == 'length' then
        length = length + tonumber(info[i + 1])
      end
    end
  end
  if not added then
    return 0 -- there is no log, or this Redis does not count
  end
  local gone = added - length - tonumber(redis.call('HGET', totals, 'events') or '0')
  local known = redis.call('HMGET', partition, 'gone', 'seq', 'trimmed', 'untold_trimmed')
  -- An earlier version did not count, and another log in the place of the first one counts from its own start.
  local before = tonumber(known[1] or (known[2] and gone) or '0')
  if not known[1] or gone ~= before then
    redis.call('HSET', partition, 'gone', string.format('%.0f', gone))
  end
  local untold = tonumber(known[4] or '0')
  if gone <= before then
    return untold
  end
  redis.call('HINCRBY', partition, 'trimmed', gone - before)
  redis.call('HSETNX', partition, 'trimmed_at', string.format('%.0f', now_ms))
  if not known[3] then
    untold = gone - before
    redis.call('HSET', partition, 'untold_trimmed', string.format('%.0f', untold))
  end
  return untold
end
