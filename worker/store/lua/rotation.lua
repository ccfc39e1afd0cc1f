-- Rotates the ledger of a partition: the older half is forgotten, except for pairs with a late mark, whose outcome may have
-- to be repaired. `vouched` says since when nothing is forgotten: whatever was confirmed later is in one of the halves.
--
-- Needs a script whose first write was made before: a full server refuses one whose first write could grow it.
-- rotated: when it rotated before, as it is stored  now_ms: what it is stored as now
local function rotate_ledger(partition, ledger_new, ledger_old, late, rotated, now_ms)
  local kept = {}
  if redis.call('EXISTS', late, ledger_old) == 2 then
    local marks = redis.call('HGETALL', late)
    for i = 1, #marks, 2 do
      local confirmed = redis.call('HGET', ledger_old, marks[i])
      if confirmed then
        kept[#kept + 1] = { marks[i], confirmed }
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
