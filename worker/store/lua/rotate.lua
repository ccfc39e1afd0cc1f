-- Rotates the ledger of a partition in which nothing waits, if it is due. Usually a settle does that, but a log that
-- accepts nothing, because ledgers fill Redis, has no settles.
--
-- KEYS  1 lease  2 partition  3 events  4 bulk  5 late  6 ledger:new  7 ledger:old
--       8..15 pending of each class  16 totals  17 parked
-- ARGV  1 ledger_ms
-- Returns how many entries of the log are gone unread, as untold_trimmed says: a log that was emptied is never claimed
local partition, ledger_new, ledger_old = KEYS[2], KEYS[6], KEYS[7]
if redis.call('EXISTS', KEYS[1], unpack(KEYS, 8, 15)) > 0
  or redis.call('XLEN', KEYS[3]) + redis.call('XLEN', KEYS[4]) > 0 then
  return 0
end
-- The first write can only shrink: a full server refuses a script whose first write could grow it.
redis.call('HDEL', partition, 'none')
local rotated = redis.call('HGET', partition, 'rotated')
local time = redis.call('TIME')
local now_ms = math.floor(time[1] * 1000 + time[2] / 1000)
local trimmed = untold_trimmed(partition, { KEYS[3], KEYS[4] }, KEYS[16], now_ms)
if not rotated or now_ms <= tonumber(rotated) + tonumber(ARGV[1])
  or redis.call('EXISTS', ledger_new, ledger_old) == 0 then
  return trimmed
end
rotate_ledger(partition, ledger_new, ledger_old, { KEYS[5], KEYS[17] }, rotated, now_ms)
return trimmed
