"""Computes the writes for one partition from a batch's outcome (pure).

Every accepted change waits, or ends in exactly one of confirmed, coalesced, superseded, stale or dead (contract,
section 6). The same script writes a state and the counters of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import orjson

from worker.core.backoff import next_try_ms
from worker.core.codec import Parked, encode_parked, encode_remembered, encode_state
from worker.core.counters import count_time, count_times, dead_counter
from worker.core.dead_letter import message_or_none, text_or_none, whole_or_none
from worker.core.entry import UNMAPPED, Malformed, entry_time_ms, split_pair
from worker.core.lane import CLASSES, class_of
from worker.core.outcome import loggable_code
from worker.core.pair import Refused, confirm
from worker.core.reasons import BURIED, REFUSED

if TYPE_CHECKING:
    from producers.contract.change import Lane, Op
    from worker.core.pair import PairState, Side, Verdict
    from worker.core.slice import PartitionSlice

_NUMBER_DIGITS: Final = 20  # leading zeros are valid; more digits than this are not a time

Fate = Literal["confirmed", "refused", "suspect", "doubted", "kept", "buried"]
"""What became of the chosen pairs: confirmed; refused; to be tried in smaller company; refused while the endpoint
refuses everything, so to be tried again after all others; still waiting; parked, and given up by an operator."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the endpoint refuses a record, as it answered.

    Attributes:
        code: its error code.
        field: its error field.
        message: its own text.
        known: whether the code is documented as the fault of a record; if not, or if there is no room for another dead
            letter, the record is parked.
    """

    code: str
    field: str
    message: str
    known: bool = True


@dataclass(slots=True)
class Settlement:
    """The writes of one partition, as `settle.lua` and `mark_late.lua` take them: flat, in turn.

    Attributes:
        position: id of the last entry settled, empty if it stays.
        bulk_position: the same of the bulk lane's log.
        ledger: pair, what was confirmed.
        keep: pair, state that waits; for each class.
        drop: pair that no longer waits; for each class.
        clear: pair, late mark that is over.
        letters: pair or nothing, what was confirmed or nothing, letter.
        know: pair with dead letters, what was confirmed.
        park: pair, when it is tried again and its state.
        unpark: pair that is no longer parked.
        forget: pair whose confirmed outcome is forgotten.
        late: pair, until when an upsert, until when a delete may still result; written before everything else.
        totals: by how much each counter moves.
    """

    position: bytes = b""
    bulk_position: bytes = b""
    ledger: list[bytes] = field(default_factory=list)
    keep: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(CLASSES)])
    drop: list[list[bytes]] = field(default_factory=lambda: [[] for _ in range(CLASSES)])
    clear: list[bytes] = field(default_factory=list)
    letters: list[bytes] = field(default_factory=list)
    know: list[bytes] = field(default_factory=list)
    park: list[bytes] = field(default_factory=list)
    unpark: list[bytes] = field(default_factory=list)
    forget: list[bytes] = field(default_factory=list)
    late: list[bytes | int] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)

    @property
    def keeps(self) -> bool:
        """Whether any pair is to wait on."""
        return any(self.keep)

    @property
    def drops(self) -> int:
        """How many pairs no longer wait."""
        return sum(map(len, self.drop))


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a request and of the pairs chosen for it.

    Attributes:
        fate: what becomes of the pairs.
        begun_ms: when the request began (Unix ms, Redis' clock).
        now_ms: the present (Unix ms, Redis' clock).
        suspect: most records of the next batch with these pairs (fate `suspect`).
        refusal: why the endpoint refuses them (fate `refused`).
        parks: whether a record may be parked; else it waits on.
    """

    fate: Fate
    begun_ms: int
    now_ms: int
    suspect: int = 0
    refusal: Refusal | None = None
    parks: bool = True


def settlement(
    part: PartitionSlice, chosen: frozenset[bytes], repairs: frozenset[bytes], result: BatchResult
) -> Settlement:
    """Computes the writes for one partition: the chosen pairs by their fate, the others as still waiting."""
    into = Settlement(position=part.log.position, bulk_position=part.log.bulk_position)
    if result.fate == "confirmed":
        _confirm_fast_path(into, part, result.now_ms)
    else:
        part.materialize()
    joined = len(part.log.fast_path) + part.refused
    into.totals["suppressed"] += part.refused
    for pair, reached in part.verdicts.items():
        joined += _live(reached)
        into.totals["stale"] += reached.stale
        into.totals["suppressed"] += reached.suppressed
        if reached.op is None:
            if pair in part.suppressed and (part.late_until_ms > result.begun_ms or _perhaps_sent(part, pair)):
                # The upsert that is refused now may be on its way, or at the endpoint already: a delete follows then.
                into.late += (pair, max(part.late_until_ms, result.now_ms), 0)
            _leave(into, part, pair, None)
        elif pair in part.resting and pair not in chosen:
            _rest(into, part, pair, reached)
        elif pair not in chosen or result.fate == "kept":
            _keep(into, part, pair, reached, suspect=0)
        else:
            _settle_chosen(into, part, pair, reached, result)
    for entry in part.log.malformed:
        into.letters += (b"", b"", _malformed_letter(entry, result.now_ms))
        into.totals[dead_counter(entry.reason)] += 1
    waited = sum(state.live for state in part.pending.values())
    into.totals["events"] += part.log.read
    into.totals["dead_lettered"] += len(part.log.malformed)
    into.totals["coalesced"] += part.log.read - len(part.log.malformed) + waited - joined
    _settle_marks(into, part, repairs, result)
    return into


def _perhaps_sent(part: PartitionSlice, pair: bytes) -> bool:
    """Whether a worker whose lease expired can have sent what waits of a pair, however long ago that was."""
    states = part.log.states.get(pair), part.pending.get(pair)
    return any(state is not None and state.first_ms <= part.late_to_ms for state in states)


def _settle_chosen(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, result: BatchResult) -> None:
    if result.fate == "suspect":
        _keep(into, part, pair, reached, suspect=result.suspect)
    elif result.fate == "doubted":
        refusals = -min(0, reached.state.suspect) if reached.state is not None else 0
        _keep(into, part, pair, reached, suspect=-(refusals + 1))
    elif result.fate == "confirmed":
        _confirm(into, part, pair, reached, result)
    elif result.refusal is not None and (not result.refusal.known or part.letters <= 0):
        if result.parks:
            _park(into, part, pair, reached, result)
        else:
            _keep(into, part, pair, reached, suspect=1)
    else:
        _dead_letter(into, part, pair, reached, result)


def _live(reached: Verdict) -> int:
    """Number of changes that the pair's joined state stands for, stale ones included."""
    left = reached.state.live if reached.state is not None else 0
    return left + reached.stale + reached.suppressed


def _leave(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict | None) -> None:
    """Ends the wait of a pair, except for what its verdict leaves for a later request."""
    if reached is not None and reached.rest is not None:
        # The rest is not suspect: the rejected record was the one that has just ended.
        _wait(into, part, pair, reached.rest._replace(suspect=0), "upsert")
    else:
        _unwait(into, part, pair)


def _unwait(into: Settlement, part: PartitionSlice, pair: bytes) -> None:
    if pair in part.classes:
        into.drop[part.classes[pair]].append(pair)
    if pair in part.parked:
        into.unpark.append(pair)


def _rest(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict) -> None:
    """Keeps a parked pair parked until its time: nothing newer came that would try it sooner."""
    parked, state = part.parked[pair], reached.state
    if state is not None and state != parked.state:
        into.park += (pair, encode_parked(Parked(parked.due_ms, state, part.is_bulk(pair))))


def _park(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, result: BatchResult) -> None:
    """The pair keeps its state, and is tried again alone after longer and longer waits."""
    if reached.state is None or result.refusal is None:
        return
    before = reached.state.refused
    since_ms, tries = (before.since_ms, before.tries) if before else (result.now_ms, 0)
    code, name = loggable_code(result.refusal.code), loggable_code(result.refusal.field)
    state = reached.state._replace(suspect=1, refused=Refused(since_ms, tries + 1, code, name))
    into.park += (pair, encode_parked(Parked(next_try_ms(since_ms, result.now_ms), state, part.is_bulk(pair))))
    if pair in part.classes:
        into.drop[part.classes[pair]].append(pair)


def _keep(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, suspect: int) -> None:
    state = reached.state
    if state is None:
        return
    if suspect:
        state = state._replace(suspect=suspect)
    elif pair in part.parked and state == part.parked[pair].state:
        return  # it is due, but others went first
    _wait(into, part, pair, state, reached.op)


def _wait(into: Settlement, part: PartitionSlice, pair: bytes, state: PairState, op: Op | None) -> None:
    """The pair waits with this state for a record of this op, in that record's class and no other."""
    heavy = part.is_heavy(pair)
    now, before = class_of(op or "upsert", bulk=part.is_bulk(pair), heavy=heavy), part.classes.get(pair)
    if now != before or part.pending.get(pair) != state:
        into.keep[now] += (pair, encode_state(state))
    if before is not None and now != before:
        into.drop[before].append(pair)
    if pair in part.parked:
        into.unpark.append(pair)


def _confirm_fast_path(into: Settlement, part: PartitionSlice, now_ms: int) -> None:
    """Confirms the pairs on the fast path: all of them are in the batch, and nothing else speaks against them."""
    upserts, deletes = len(part.log.fast_path.upserts), len(part.log.fast_path.deletes)
    into.ledger += part.log.fast_path.ledger()
    into.totals["records_confirmed"] += upserts + deletes
    into.totals["upserts_confirmed"] += upserts
    into.totals["deletes_confirmed"] += deletes
    count_times(into.totals, "upsert", (said[1] for said in part.log.fast_path.upserts.values()), now_ms)
    count_times(into.totals, "delete", (said[1] for said in part.log.fast_path.deletes.values()), now_ms)


def _confirm(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, result: BatchResult) -> None:
    suppressed = pair in part.suppressed
    if suppressed:
        into.forget.append(pair)  # no upsert can come back that a memory would have to outdate
    else:
        into.ledger += (pair, encode_remembered(confirm(part.remembered(pair), reached)))
    if pair in part.dead_pairs:
        known = confirm(part.remembered(pair), reached, unstamped_upserts=True)
        into.know += (pair, encode_remembered(known))
    into.totals["records_confirmed"] += 1
    into.totals["deletes_confirmed" if reached.op == "delete" else "upserts_confirmed"] += 1
    into.totals["superseded"] += reached.superseded
    mark = part.marks.get(pair)
    state = reached.state
    side = _side(reached)
    if side is not None and reached.op is not None:
        count_time(into.totals, reached.op, side.first_ms, result.now_ms)
    # Of a suppressed pair an upsert may have been refused that the worker knew, so that its state begins too late.
    reach = state is not None and (mark is not None or suppressed or state.first_ms <= part.late_to_ms)
    if part.late_until_ms > result.begun_ms and reach:
        # A worker whose lease expired may have sent either op of this pair: its outcome is sent again after that.
        into.late += (pair, part.late_until_ms, part.late_until_ms)
    elif mark is not None and mark[1].until_ms <= result.begun_ms:
        into.clear += (pair, mark[0])
    _leave(into, part, pair, reached)


def _dead_letter(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, result: BatchResult) -> None:
    known = part.remembered(pair)
    into.letters += (
        pair,
        encode_remembered(known) if known else b"",
        _refused_letter(pair, reached, result, "bulk" if part.is_bulk(pair) else "live"),
    )
    into.totals["dead_lettered"] += 1
    into.totals[dead_counter(BURIED if result.fate == "buried" else REFUSED)] += 1
    into.totals["superseded"] += reached.superseded
    _leave(into, part, pair, reached)


def gives_up(part: PartitionSlice, pair: bytes, *, known: bool) -> bool:
    """Whether a repair that was refused alone is not sent again.

    The endpoint never accepts a pair that it refuses with a known code, so no late request can have changed it. Of
    somebody who was erased that is not enough: it may have accepted the person before it began to refuse.

    Args:
        part: the partition.
        pair: whose outcome was to be repaired.
        known: whether the contract knows the code.
    """
    return known and pair not in part.suppressed


def _settle_marks(into: Settlement, part: PartitionSlice, repairs: frozenset[bytes], result: BatchResult) -> None:
    for pair in part.past:
        into.clear += (pair, part.marks[pair][0])
    for pair in repairs:
        if result.fate == "refused" and gives_up(part, pair, known=result.refusal is None or result.refusal.known):
            into.clear += (pair, part.marks[pair][0])
        elif result.fate != "confirmed":
            continue
        elif part.late_until_ms > result.begun_ms:
            # A worker whose lease expired may have sent this repair too.
            into.late += (pair, part.late_until_ms, part.late_until_ms)
        else:
            into.clear += (pair, part.marks[pair][0])
        if result.fate == "confirmed":
            into.totals["repairs"] += 1


def _malformed_letter(entry: Malformed, now_ms: int) -> bytes:
    if entry.reason == "unmapped":
        return _unmapped_letter(entry, now_ms)
    text = {name.decode(): _readable(value) for name, value in entry.fields.items()}
    return orjson.dumps(
        {
            "owner": text.get("owner"),
            "contact": text.get("contact"),
            "op": text.get("op"),
            "at": _number(entry.fields.get(b"at")),
            "source": text.get("source"),
            "reason": entry.reason,
            "code": None,
            "field": None,
            "message": None,
            "lane": entry.lane,
            "since": now_ms,
            "entry": entry.entry_id.decode(),
            "entry_ms": entry_time_ms(entry.entry_id),
        }
    )


def _unmapped_letter(entry: Malformed, now_ms: int) -> bytes:
    """The letter of a message that does not fit the inbox's mapping, with all of it: so it can be read again."""
    try:
        found = orjson.loads(entry.fields[UNMAPPED])
    except orjson.JSONDecodeError:  # somebody else wrote that field
        found = None
    told = found if isinstance(found, dict) else {}
    return orjson.dumps(
        {
            **{name: text_or_none(told.get(name)) for name in ("owner", "contact", "op")},
            "at": whole_or_none(told.get("at")),
            "source": None,
            "reason": entry.reason,
            "code": None,
            "field": text_or_none(told.get("field")),
            "message": text_or_none(told.get("rule")),
            "lane": entry.lane,
            "since": now_ms,
            "entry": entry.entry_id.decode(),
            "entry_ms": entry_time_ms(entry.entry_id),
            "said": message_or_none(told.get("said")),
        }
    )


def _side(reached: Verdict) -> Side | None:
    """The changes of the op that the verdict sends."""
    state = reached.state
    return None if state is None else state.delete if reached.op == "delete" else state.upsert


def _refused_letter(pair: bytes, reached: Verdict, result: BatchResult, lane: Lane) -> bytes:
    side = _side(reached)
    owner, contact = split_pair(pair)
    refusal = result.refusal or Refusal("", "", "")
    if result.fate == "buried" and reached.state is not None and reached.state.refused is not None:
        refusal = Refusal(reached.state.refused.code, reached.state.refused.field, "")
    return orjson.dumps(
        {
            "owner": owner.decode(),
            "contact": contact.decode(),
            "op": reached.op,
            # If the newest of them carries no time, the letter gets that of its entry, which a redrive uses.
            "at": (max(side.at, side.entry_ms) if side.at else None) if side else None,
            "source": _readable(side.source) or None if side else None,
            "reason": BURIED if result.fate == "buried" else REFUSED,
            "code": refusal.code or None,
            "field": refusal.field or None,
            "message": refusal.message or None,
            "lane": lane,
            "since": result.now_ms,
            "entry": None,
            "entry_ms": (side.entry_ms or side.first_ms) if side else None,
        }
    )


def _readable(raw: bytes) -> str:
    """The text, shortened; bytes that are not UTF-8 are escaped."""
    return raw[:1024].decode("utf-8", "backslashreplace")


def _number(raw: bytes | None) -> int | None:
    number = int(raw) if raw is not None and raw.isdigit() and len(raw) <= _NUMBER_DIGITS else None
    return number if number is None or number < 2**63 else None
