"""Each script of `worker/store/lua` in Python, on the Redis model: the same keys, arguments, writes and replies.

Kept line by line beside the Lua, in its order; the differential test says where one of them strays.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.values import bytes_of, entry_id
from worker.core.flow import Denied, FlowLimits, Left, read_flow, write_flow
from worker.core.rate import LONG_WAIT_MS
from worker.store import scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.redis_model import RedisModel

_SIDE = re.compile(rb"^([du])(\d+)")
_COUNT = re.compile(rb"^\d+")
_FLOW: Final = ("pace", "flight", "requests", "seen")
_KNOWN = re.compile(rb"^[du](\d*),(\d*)$")


def claim(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """claim.lua."""
    lease, partition, events, bulk = keys[:4]
    if redis.exists(lease):
        return None
    bulk_waiting = redis.xlen(bulk)
    sizes = [redis.hlen(key) for key in keys[4:]]
    token_was, holder, position, seq, late_until_was, late_to_was, late_due, bulk_position = redis.hmget(
        partition, "token", "holder", "position", "seq", "late_until", "late_to", "late_due", "bulk_position"
    )
    parked_due, untold = redis.hmget(partition, "parked_due", "untold_replaced")
    late_until, late_to = int(late_until_was or 0), int(late_to_was or 0)
    now_us, now_ms = redis.now_us(), redis.now_ms
    replaced = int(untold or 0)
    positions = [position or b"0-0", bulk_position or b"0-0"]
    for i, (key, name) in enumerate(((events, "position"), (bulk, "bulk_position"))):
        log = redis.stream_of(key)
        known = entry_id(positions[i])
        if positions[i] != b"0-0" and (log is None or (log.entries and entry_id(log.entries[0][0]) <= known)):
            replaced, positions[i] = 1, b"0-0"
            redis.hset(partition, name, b"0-0", "strayed", now_ms, "untold_replaced", 1)
    token = max(int(token_was or 0) + 1, now_us)
    if holder is not None:
        late_until = max(late_until, now_ms + int(argv[1]))
        late_to = now_ms
        late_to = max(late_to, _last_ms(redis, events, bulk))
        redis.hset(partition, "late_until", late_until, "late_to", late_to)
    redis.set(lease, token, expires_in_ms=int(argv[0]))
    redis.hset(partition, "token", token, "holder", token)
    counts = [redis.xlen(events), bulk_waiting, sizes[0], int(late_due or 0), *sizes[1:3]]
    counts += [late_until, late_to, replaced, sizes[11], int(parked_due or 0), *sizes[3:11]]
    first = _untold_trimmed(redis, partition, (events, bulk), keys[18])
    return [b"%d" % token, now_ms, seq or b"0", *positions, *counts, first]


def _untold_trimmed(redis: RedisModel, partition: str, logs: Sequence[str], totals: str) -> int:
    """trimmed.lua."""
    streams = [each for each in map(redis.stream_of, logs) if each is not None]
    if not streams:
        return 0
    gone = sum(each.added - len(each.entries) for each in streams) - int(redis.hget(totals, "events") or 0)
    known, seq, trimmed, untold = redis.hmget(partition, "gone", "seq", "trimmed", "untold_trimmed")
    before = int(known) if known is not None else gone if seq is not None else 0
    if known is None or gone != before:
        redis.hset(partition, "gone", gone)
    if gone <= before:
        return int(untold or 0)
    redis.hincrby(partition, "trimmed", gone - before)
    redis.hsetnx(partition, "trimmed_at", redis.now_ms)
    if trimmed is not None:
        return int(untold or 0)
    redis.hset(partition, "untold_trimmed", gone - before)
    return gone - before


def _last_ms(redis: RedisModel, *logs: str) -> int:
    """The time of the newest entry of these logs, 0 if they hold none."""
    streams = [redis.stream_of(log) for log in logs]
    return max((entry_id(each.entries[-1][0])[0] for each in streams if each and each.entries), default=0)


def release(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """release.lua."""
    if redis.get(keys[0]) != bytes_of(argv[0]):
        return 0
    redis.delete(keys[0])
    redis.hdel(keys[1], "holder")
    return 1


class _Items:
    """The items of a settle, as many of each kind as its counts say."""

    def __init__(self, argv: Sequence[Any]) -> None:
        self._argv = argv
        self._at = 31

    def block(self, kind: int, width: int) -> list[tuple[bytes, ...]]:
        """The next kind's items."""
        first, count = self._at, int(self._argv[6 + kind])
        self._at = first + count * width
        flat = [bytes_of(each) for each in self._argv[first : self._at]]
        return [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]


def settle(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:  # noqa: C901, PLR0912, PLR0915 - as the Lua
    """settle.lua."""
    lease, partition, events, bulk, ledger_new, ledger_old, late, dead, dead_pairs, totals, *classes, parked = keys
    token, expected, position = bytes_of(argv[0]), int(argv[1]), bytes_of(argv[3])
    token_was, seq_was, rotated_was, oldest_was, late_due_was, oldest_delete_was, oldest_bulk_was = redis.hmget(
        partition, "token", "seq", "rotated", "oldest", "late_due", "oldest_delete", "oldest_bulk"
    )
    parked_was = redis.hget(partition, "parked_due")
    seq = int(seq_was or 0)
    if token_was == token and seq == expected + 1:
        return _settled(redis, keys, int(late_due_was or 0), int(parked_was or 0))
    if redis.get(lease) != token or seq != expected:
        return [b"fenced"]
    items = _Items(argv)
    ledger, keeps = items.block(1, 2), [items.block(2 + i, 2) for i in range(8)]
    drops = [items.block(10 + i, 1) for i in range(8)]
    clear, letters, know, counted = items.block(18, 2), items.block(19, 3), items.block(20, 2), items.block(21, 2)
    park, unpark, forget = items.block(22, 2), items.block(23, 1), items.block(24, 1)
    if letters and redis.hlen(dead) + len(letters) > int(argv[5]):
        return [b"full"]
    position_ms = None
    redis.xtrim(events, b"0-0")
    for key, field, settled in ((events, "position", position), (bulk, "bulk_position", bytes_of(argv[6]))):
        if settled:
            ms, n = entry_id(settled)
            position_ms = ms if position_ms is None else min(position_ms, ms)
            redis.xtrim(key, b"%d-%d" % (ms, n + 1))
            redis.hset(partition, field, settled)
    for pair, confirmed in ledger:
        redis.hset(ledger_new, pair, confirmed)
    for (pair,) in forget:
        redis.hdel(ledger_new, pair)
        redis.hdel(ledger_old, pair)
    for each, keep, drop in zip(classes, keeps, drops, strict=True):
        for (pair,) in drop:
            redis.hdel(each, pair)
        for pair, state in keep:
            redis.hset(each, pair, state)
    for (pair,) in unpark:
        redis.hdel(parked, pair)
    for pair, parked_value in park:
        redis.hset(parked, pair, parked_value)
    now_ms = redis.now_ms
    for pair, mark in clear:
        if redis.hget(late, pair) == mark and max(_mark(mark)) <= now_ms:
            redis.hdel(late, pair)
    for pair, confirmed in know:
        value = redis.hget(dead_pairs, pair)
        if value is not None:
            redis.hset(dead_pairs, pair, _letters_of(value) + b";" + confirmed)
    for pair, confirmed, letter in letters:
        where = partition[partition.rindex("{") + 1 : partition.rindex("}")]
        redis.hset(dead, f"{where}-{redis.hincrby(partition, 'letters', 1)}", letter)
        if pair:
            value = redis.hget(dead_pairs, pair)
            count = int(_letters_of(value)) if value is not None else 0
            redis.hset(dead_pairs, pair, b"%d;%b" % (count + 1, confirmed))
    for name, number in counted:
        redis.hincrby(totals, name, int(number))

    oldest = math.inf
    for first, since, was in ((0, "oldest", oldest_was), (4, "oldest_bulk", oldest_bulk_was)):
        lane = range(first, first + 4)
        waiting = sum(redis.hlen(classes[i]) for i in lane)
        exact = waiting == 0 or (waiting <= 128 and any(keeps[i] or drops[i] for i in lane))
        if exact:
            states = [state for i in lane for state in redis.hash_of(classes[i]).values()]
        else:
            states = [state for i in lane for _, state in keeps[i]]
        oldest = min(oldest, _oldest(redis, partition, since, None if exact else was, b"du", states))
        if first == 0:
            _oldest(redis, partition, "oldest_delete", None if exact else oldest_delete_was, b"d", states)

    marks, late_due = redis.hlen(late), int(late_due_was or 0)
    if marks == 0 and late_due_was is not None:
        late_due = 0
        redis.hdel(partition, "late_due")
    elif marks > 0 and ((clear and marks <= 1000) or (not clear and late_due <= now_ms)):
        late_due = min(max(_mark(mark)) for mark in redis.hash_of(late).values())
        redis.hset(partition, "late_due", late_due)

    values = redis.hash_of(parked).values() if redis.hlen(parked) else ()
    moved = bool(park or unpark)
    if parked_was is None or (moved and len(values) <= 1000) or (not moved and int(parked_was) <= now_ms):
        dues = [_due(value) for value in values]
    else:
        dues = [int(parked_was), *(_due(value) for _, value in park)]
    parked_due = min(dues) if values else 0
    if values:
        redis.hset(partition, "parked_due", parked_due)
    else:
        redis.hdel(partition, "parked_due")

    if position_ms is not None:
        reach_ms = int(rotated_was or 0) + int(argv[4])
        streams = [redis.stream_of(log) for log in (events, bulk)]
        unread = [entry_id(each.entries[0][0])[0] for each in streams if each and each.entries]
        if rotated_was is None or min(position_ms, oldest, *unread) > reach_ms:
            from_ms = max(now_ms, position_ms, _last_ms(redis, events, bulk))
            if rotated_was is not None:
                _rotate_ledger(redis, ledger_new, ledger_old, (late, parked))
            redis.hset(partition, "rotated", from_ms, "vouched", rotated_was or b"0")

    redis.hset(partition, "seq", seq + 1)
    if int(argv[2]) > 0:
        redis.pexpire(lease, int(argv[2]))
    else:
        redis.delete(lease)
        redis.hdel(partition, "holder")
    return _settled(redis, keys, late_due, parked_due)


def _rotate_ledger(redis: RedisModel, ledger_new: str, ledger_old: str, keepers: Sequence[str]) -> None:
    """rotation.lua, but for what it notes."""
    kept = {pair: redis.hget(ledger_old, pair) for keeper in keepers for pair in redis.hash_of(keeper)}
    redis.delete(ledger_old)
    if redis.exists(ledger_new):
        redis.rename(ledger_new, ledger_old)
    for pair, confirmed in kept.items():
        if confirmed is not None:
            redis.hsetnx(ledger_old, pair, confirmed)


def _due(parked: bytes) -> int:
    return int(parked.partition(b";")[0].removesuffix(b"b"))


def _settled(redis: RedisModel, keys: Sequence[str], late_due_ms: int, parked_due_ms: int) -> list[Any]:
    counts = [redis.hlen(key) for key in keys[6:9]]  # late, dead, dead:pairs
    classes = [redis.hlen(key) for key in keys[10:18]]
    counts = [counts[0], late_due_ms, *counts[1:], redis.hlen(keys[18]), parked_due_ms, *classes]
    return [b"settled", redis.xlen(keys[2]), redis.xlen(keys[3]), *counts]


def mark_late(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """mark_late.lua."""
    late, partition = keys[0], keys[1]
    redis.xtrim(keys[2], b"0-0")
    known_due = redis.hget(partition, "late_due")
    due = math.inf if known_due is None else float(known_due)
    for i in range(0, len(argv), 3):
        upsert, delete = int(argv[i + 1]), int(argv[i + 2])
        known = redis.hget(late, argv[i])
        if known is not None:
            known_upsert, known_delete = _mark(known)
            upsert, delete = max(upsert, known_upsert), max(delete, known_delete)
        redis.hset(late, argv[i], b"%d,%d" % (upsert, delete))
        due = min(due, max(upsert, delete))
    if argv:
        redis.hset(partition, "late_due", int(due))
    return len(argv) // 3


def gate_ask(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """gate_ask.lua."""
    gate, now_ms, clock_back_ms = keys[0], redis.now_ms, int(argv[4])
    limits = FlowLimits(float(argv[2]), int(argv[3]))
    names = ("state", "generation", "attempts", "not_before", "probe_until", "moved", "limit", "limit_at", "reason")
    fields = redis.hmget(
        gate, *names, "error", "lone", "paused", "pace", "flight", "requests", "seen", "limits", "suppression"
    )
    flow = read_flow(dict(zip(_FLOW, fields[12:16], strict=True)), now_ms, clock_back_ms)

    def answer(what: bytes, wait_ms: int) -> Any:
        kept = write_flow(flow)
        redis.hdel(gate, "none")
        fields[16] = f"{argv[2]} {argv[3]}".encode()
        redis.hset(gate, *(item for each in kept.items() for item in each), "seen", now_ms, "limits", fields[16])
        fields[12:15] = [bytes_of(each) for each in kept.values()]
        return [what, now_ms, wait_ms, fields]

    start_ms = 0
    if fields[11] is not None:
        return answer(b"closed", 0)
    closed_ms = max(int(fields[3] or 0), int(fields[4] or 0)) - now_ms
    if closed_ms > 0 and int(fields[5] or 0) <= now_ms + clock_back_ms:
        return answer(b"closed", closed_ms)
    if (fields[0] or b"ok") == b"ok":
        asked = flow.ask(now_ms, limits)
        if isinstance(asked, Denied):
            return answer(asked.why.encode(), asked.wait_ms)
        start_ms = int(asked.start_ms)
    flow.begin(bytes_of(argv[0]).decode(), now_ms + int(argv[1]))
    return answer(b"go", start_ms)


def gate_enter(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """gate_enter.lua."""
    gate, now_ms = keys[0], redis.now_ms
    names = ("generation", "attempts", "lone", "not_before", "probe_until", "moved", "paused")
    state, suppression, *numbers = redis.hmget(gate, "state", "suppression", *names)
    generation, attempts, single_rejections, not_before, probe_until, moved, paused = (
        int(each or 0) for each in numbers
    )
    if paused or (suppression or b"") != bytes_of(argv[4]):
        return [b"closed", generation, attempts, single_rejections, 0]
    wait_ms = max(not_before, probe_until) - now_ms
    if wait_ms > 0 and moved <= now_ms + int(argv[2]):
        return [b"closed", generation, attempts, single_rejections, wait_ms]
    if state is None or state == b"ok":
        moved_since = bytes_of(argv[3]) and int(argv[3]) != generation
        return [b"closed" if moved_since else b"open", generation, attempts, single_rejections, 0]
    redis.hdel(gate, "probe_until", "not_before")
    redis.hset(gate, "probe", argv[0], "probe_until", now_ms + int(argv[1]), "moved", now_ms)
    return [b"probe", generation, attempts, single_rejections, 0]


def gate_report(  # noqa: C901, PLR0911 - as the Lua
    redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]
) -> Any:
    """gate_report.lua."""
    gate, what, now_ms = keys[0], bytes_of(argv[1]), redis.now_ms
    state_was, generation_was, attempts_was, rejections_was, reason_was, *flow_was, probe, wait_was, moved = (
        redis.hmget(gate, "state", "generation", "attempts", "lone", "reason", *_FLOW, "probe", "not_before", "moved")
    )
    not_before = int(wait_was or 0) if int(moved or 0) <= now_ms + int(argv[15]) else 0
    state, generation, attempts = state_was or b"ok", int(generation_was or 0), int(attempts_was or 0)
    current = int(argv[0]) == generation
    flow = read_flow(dict(zip(_FLOW, flow_was, strict=True)), now_ms, int(argv[15]))
    token, latency, overloaded, wait_ms, stated, rest_ms = argv[7:13]
    left = Left(
        bytes_of(token).decode(),
        float(latency) if bytes_of(latency) else None,
        bytes_of(overloaded) == b"1",
        int(wait_ms),
        float(stated),
        int(rest_ms),
        what == b"unused",
    )
    limits = FlowLimits(float(argv[13]), int(argv[14]))
    open_and_current = current and state == b"ok"
    lowered = flow.leave(now_ms, limits, left, limited=what == b"limited", open_and_current=open_and_current)
    redis.hdel(gate, "none")
    redis.hset(gate, *(item for each in write_flow(flow).items() for item in each), "seen", now_ms)
    if what == b"unused":
        if probe == bytes_of(token):
            redis.hdel(gate, "probe", "probe_until")
        return state
    single_rejections = 0 if what == b"confirmed" else int(rejections_was or 0) + (what == b"single_rejection")
    redis.hset(gate, "lone", single_rejections)
    if what == b"too_large":
        redis.hset(gate, "limit", argv[5], "limit_at", now_ms)
    if not current:
        until_ms = now_ms + left.wait_ms
        if what in {b"retry", b"limited", b"hold"} and left.wait_ms > 0 and until_ms > not_before:
            redis.hset(gate, "not_before", until_ms, "moved", now_ms)
        return state

    def close(to: bytes, reason: Any, attempts: int) -> bytes:
        redis.hset(gate, "state", to, "reason", reason, "error", argv[4], "attempts", attempts)
        redis.hset(
            gate, "not_before", max(not_before, now_ms + int(argv[2])), "moved", now_ms, "generation", generation + 1
        )
        if state != to:
            redis.hset(gate, "since", now_ms)
        redis.hdel(gate, "probe", "probe_until")
        return to

    every = b"every_record_rejected"
    if lowered and left.wait_ms <= LONG_WAIT_MS:
        redis.hset(gate, "error", argv[4], "generation", generation + 1)
        return state
    if what in {b"retry", b"limited"}:
        return close(b"backing_off", b"", attempts + 1)
    if what == b"hold":
        return close(b"held", argv[3], attempts)
    if what == b"single_rejection" and single_rejections >= int(argv[6]):
        return close(b"held", every, attempts)
    if what == b"answered" and state == b"held" and reason_was == every:
        return close(b"held", every, attempts)
    if state != b"ok":
        redis.hset(gate, "state", "ok", "reason", "", "attempts", 0, "since", now_ms, "generation", generation + 1)
        redis.hdel(gate, "probe", "probe_until")
        if not_before <= now_ms:
            redis.hdel(gate, "not_before")
    return b"ok"


def pause(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """pause.lua."""
    gate, before = keys[0], int(redis.hget(keys[0], "paused") or 0)
    redis.hdel(gate, "none")
    if bytes_of(argv[0]) == b"resume":
        redis.hdel(gate, "paused")
        return [before, 0]
    now = before or redis.now_ms
    redis.hset(gate, "paused", now)
    return [before, now]


def ticker(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """ticker.lua."""
    holder = redis.get(keys[0])
    if holder is not None and holder != bytes_of(argv[0]):
        return 0
    redis.delete(keys[0])
    redis.set(keys[0], argv[0], expires_in_ms=int(argv[1]))
    return 1 if holder is not None else 2


def beat(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """beat.lua."""
    config, seen, now_ms = keys[0], int(argv[0]), redis.now_ms
    group, seen_own, told_ms = f"beat:{int(argv[1])}", int(argv[2]), int(argv[3])
    names = ("beat", "beat_at", "lost_from", "partitions", "repartitioning", group, "lost_at")
    beat_was, beat_at, lost_from_was, partitions, changing, own_was, lost_at_was = redis.hmget(config, *names)
    count, lost_from, lost_at, noted = int(beat_was or 0), 0, 0, int(lost_at_was or 0)
    own, own_at = (int(each) for each in (own_was or b"0 0").split())
    redis.hdel(config, "none")
    if count < seen or own < seen_own:
        lost_from, lost_at = int(beat_at or 0), now_ms
        if own < seen_own and own_at:
            lost_from = min(lost_from, own_at)
        redis.hset(config, "lost_from", lost_from if lost_from_was is None else lost_from_was, "lost_at", now_ms)
        count, own, noted = max(count, seen), max(own, seen_own), now_ms
    elif told_ms >= 0 and noted not in {0, told_ms}:
        lost_from, lost_at = int(lost_from_was or 0), noted
    noting = ("fleet_partitions", bytes_of(argv[4]))
    redis.hset(config, "beat", count + 1, "beat_at", now_ms, group, f"{own + 1} {now_ms}", *noting)
    return [count + 1, lost_from, lost_at, -1 if changing is not None else int(partitions or 0), own + 1, noted]


def redrive(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """redrive.lua."""
    dead, dead_pairs, events, ledger_new, ledger_old, partition = keys
    letter_id, pair, op = bytes_of(argv[0]), bytes_of(argv[1]), bytes_of(argv[2])
    at, reach = int(argv[3]), int(argv[4])
    if letter_id and not redis.hexists(dead, letter_id):
        return [b"gone"]
    kept = redis.hget(dead_pairs, pair)
    known = [
        None if kept is None else kept.partition(b";")[2],
        redis.hget(ledger_new, pair),
        redis.hget(ledger_old, pair),
    ]
    if any(_outdates(each, op, at) for each in known):
        return [b"outdated"]
    if reach > 0 and op == b"delete" and any(each and each[:1] == b"u" and each[-1:] == b"," for each in known[1:]):
        return [b"forgotten"]
    vouched, rotated = redis.hmget(partition, "vouched", "rotated")
    if reach > 0 and reach <= int(vouched or rotated or 0):
        return [b"forgotten"]
    entry = redis.xadd(events, *argv[5:])
    if letter_id:
        redis.hdel(dead, letter_id)
        if kept is not None:
            _one_letter_less(redis, dead_pairs, pair, kept)
    return [b"redriven", entry]


def purge(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """purge.lua."""
    dead, dead_pairs = keys[0], keys[1]
    removed = 0
    for letter_id, pair in zip(argv[::2], argv[1::2], strict=True):
        if redis.hdel(dead, letter_id):
            removed += 1
            kept = redis.hget(dead_pairs, pair) if bytes_of(pair) else None
            if kept is not None:
                _one_letter_less(redis, dead_pairs, bytes_of(pair), kept)
    return removed


def _letters_of(value: bytes) -> bytes:
    found = _COUNT.match(value)
    return found[0] if found else b""


def _oldest(  # noqa: PLR0913, PLR0917 - what the script has at hand
    redis: RedisModel, partition: str, name: str, was: bytes | None, ops: bytes, states: Sequence[bytes]
) -> float:
    """Notes since when the oldest of these ops waits, by what was known and these states; infinity where none does."""
    times = [] if was is None else [int(was)]
    for state in states:
        for side in state.split(b"\x1f"):
            part = _SIDE.match(side)
            if part and part[1] in ops:
                times.append(int(part[2]))
    if not times:
        redis.hdel(partition, name)
        return math.inf
    redis.hset(partition, name, min(times))
    return float(min(times))


def _mark(value: bytes) -> tuple[int, int]:
    upsert, _, delete = value.partition(b",")
    return int(upsert), int(delete)


def _outdates(known: bytes | None, op: bytes, at: int) -> bool:
    found = _KNOWN.match(known or b"")
    delete_at, upsert_at = (int(found[1] or 0), int(found[2] or 0)) if found else (0, 0)
    return at <= delete_at or (at < upsert_at if op == b"delete" else at <= upsert_at)


def _one_letter_less(redis: RedisModel, dead_pairs: str, pair: bytes, kept: bytes) -> None:
    count, _, known = kept.partition(b";")
    if int(count) > 1:
        redis.hset(dead_pairs, pair, b"%d;%b" % (int(count) - 1, known))
    else:
        redis.hdel(dead_pairs, pair)


def note(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """note.lua."""
    redis.hdel(keys[0], "none")
    new = not redis.hexists(keys[0], argv[0])
    redis.hset(keys[0], argv[0], argv[1])
    return int(new)


def record(redis: RedisModel, keys: Sequence[str], argv: Sequence[Any]) -> Any:
    """record.lua."""
    redis.hdel(keys[0], "none")
    return sum(redis.hsetnx(keys[0], argv[i], argv[i + 1]) for i in range(0, len(argv), 2))


SCRIPTS: Final[dict[str, Callable[[RedisModel, Sequence[str], Sequence[Any]], Any]]] = {
    scripts.CLAIM.sha: claim,
    scripts.RELEASE.sha: release,
    scripts.SETTLE.sha: settle,
    scripts.MARK_LATE.sha: mark_late,
    scripts.GATE_ASK.sha: gate_ask,
    scripts.GATE_ENTER.sha: gate_enter,
    scripts.GATE_REPORT.sha: gate_report,
    scripts.REDRIVE.sha: redrive,
    scripts.PURGE.sha: purge,
    scripts.TICKER.sha: ticker,
    scripts.PAUSE.sha: pause,
    scripts.BEAT.sha: beat,
    scripts.NOTE.sha: note,
    scripts.RECORD.sha: record,
}
"""Each script's model, by the digest of the Lua that it stands for."""
