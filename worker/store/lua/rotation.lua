-- Rotates the ledger of a partition: the older half is forgotten, except for pairs with a late mark, whose outcome may
-- have to be repaired, and for parked pairs, whose changes wait for longer than a ledger remembers. `vouched` says since
-- when nothing is forgotten: whatever was confirmed later is in one of the halves.
--
-- The script must have written before: a full server refuses a script whose first write could grow it.
-- keepers: hashes of pairs whose outcomes are kept
-- rotated: when it rotated before, as it is stored  now_ms: what it is stored as now
local function rotate_ledger(partition, ledger_new, ledger_old, keepers, rotated, now_ms)
  local kept = {}
  for _, keeper in ipairs(keepers) do
    local pairs_kept = redis.call('EXISTS', keeper, ledger_old) == 2 and redis.call('HGETALL', keeper) or {}
    for i = 1, #pairs_kept, 2 do
      local confirmed = redis.call('HGET', ledger_old, pairs_kept[i])
      if confirmed then
        kept[#kept + 1] = { pairs_kept[i], confirmed }
      end
    end
  end
  redis.call('UNLINK', ledger_old)
  if redis.call('EXISTS', ledger_new) == 1 then
    redis.call('RENAME', ledger_new, ledger_old)
  end
  for _, each in ipairs(kept) do
    redis.call('HSETNX', ledger_old, each[1], each[2])
  end
  redis.call('HSET', partition, 'rotated', string.format('%.0f', now_ms), 'vouched', rotated)
end
