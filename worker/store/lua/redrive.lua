-- Puts one dead letter back into the log, unless a newer outcome outdates it. Both happen in one step, so that no
-- confirmation can come between the check and the append.
--
-- KEYS  1 dead  2 dead:pairs  3 events, or bulk if it came through that lane  4 ledger:new  5 ledger:old  6 partition;
--       all of the owner's own partition
-- ARGV  1 id of the letter, '' if it is in another partition and is removed there afterwards  2 pair
--       3 op: upsert | delete  4 at_ms: when the change happened, as far as is known
--       5 reach_ms: how far back the ledger is needed, 0 if dead:pairs remembers everything, times included
--       6.. fields and values of the entry, in turn
-- Returns { 'redriven', id of the entry } | { 'gone' } | { 'outdated' } | { 'forgotten' }: the ledger does not reach back
--   far enough to rule out a newer outcome
local dead, dead_pairs, events = KEYS[1], KEYS[2], KEYS[3]
local id, pair, op, at, reach = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

if id ~= '' and redis.call('HEXISTS', dead, id) == 0 then
  return { 'gone' }
end

-- The same rule as in worker/core/pair.py: a delete wins if both are equal.
local function outdates(known)
  local delete_at, upsert_at = string.match(known or '', '^[du](%d*),(%d*)$')
  delete_at, upsert_at = tonumber(delete_at or '') or 0, tonumber(upsert_at or '') or 0
  if op == 'delete' then
    return at <= delete_at or at < upsert_at
  end
  return at <= delete_at or at <= upsert_at
end
local kept = redis.call('HGET', dead_pairs, pair)
local new, old = redis.call('HGET', KEYS[4], pair), redis.call('HGET', KEYS[5], pair)
if outdates(kept and string.match(kept, '^%d+;(.*)$')) or outdates(new) or outdates(old) then
  return { 'outdated' }
end
-- The ledger keeps no time of an upsert without `at`: it may be newer than this delete.
if reach > 0 and op == 'delete' and (string.match(new or '', '^u%d*,$') or string.match(old or '', '^u%d*,$')) then
  return { 'forgotten' }
end

-- As recorded where the ledger rotated: no setting of whoever redrives knows what was forgotten. An earlier version
-- recorded only when it rotated last, since when nothing is forgotten.
local since = redis.call('HMGET', KEYS[6], 'vouched', 'rotated')
if reach > 0 and reach <= tonumber(since[1] or since[2] or '0') then
  return { 'forgotten' }
end

-- The append is the first write: a full server refuses the whole step, and the letter stays.
local entry = redis.call('XADD', events, '*', unpack(ARGV, 6))
if id ~= '' then
  redis.call('HDEL', dead, id)
  local letters = kept and tonumber(string.match(kept, '^%d+')) or 0
  if letters > 1 then
    redis.call('HSET', dead_pairs, pair, string.format('%.0f', letters - 1) .. string.match(kept, ';.*$'))
  elseif kept then
    redis.call('HDEL', dead_pairs, pair)
  end
end
return { 'redriven', entry }
