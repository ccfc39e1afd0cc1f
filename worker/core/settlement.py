"""What one partition becomes by what became of a batch (pure).

Every change that was accepted ends in exactly one of confirmed, coalesced, superseded, stale or dead, or waits
(CONTRACT section 6); the counters here are moved by the same script as the state they count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import orjson

from worker.core.codec import encode_remembered, encode_state
from worker.core.counters import count_time, count_times, dead_counter
from worker.core.dead_letter import REFUSED
from worker.core.entry import Malformed, entry_time_ms, split_pair
from worker.core.pair import confirm

if TYPE_CHECKING:
    from worker.core.pair import Side, Verdict
    from worker.core.slice import PartitionSlice

_NUMBER_DIGITS: Final = 20  # leading zeros are legal; what has more digits is no time

Fate = Literal["confirmed", "refused", "suspect", "kept"]
"""What became of the chosen pairs: confirmed; refused for good; to be tried in smaller company; still waiting."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the endpoint refuses a record, in its own words."""

    code: str
    field: str
    message: str


@dataclass(slots=True)
class Settlement:
    """The writes of one partition, as `settle.lua` and `mark_late.lua` take them: flat, in turn.

    Attributes:
        position: id of the last entry settled, empty where it stays.
        ledger: pair, remembered.
        keep: pair, state.
        drop: pair.
        clear: pair, mark.
        letters: pair or nothing, remembered or nothing, letter.
        know: pair, remembered.
        late: pair, until when an upsert, until when a delete may still act; written before all the rest.
        totals: by how much each counter moves.
    """

    position: bytes = b""
    ledger: list[bytes] = field(default_factory=list)
    keep: list[bytes] = field(default_factory=list)
    drop: list[bytes] = field(default_factory=list)
    clear: list[bytes] = field(default_factory=list)
    letters: list[bytes] = field(default_factory=list)
    know: list[bytes] = field(default_factory=list)
    late: list[bytes | int] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Act:
    """A request and what became of the pairs chosen for it.

    Attributes:
        fate: what became of them.
        begun_ms: when it began (Unix ms, Redis' clock).
        now_ms: the present, for the dead letters.
        suspect: in how many records at most the chosen pairs are tried next (fate `suspect`).
        refusal: why the endpoint refuses them (fate `refused`).
    """

    fate: Fate
    begun_ms: int
    now_ms: int
    suspect: int = 0
    refusal: Refusal | None = None


def settlement(part: PartitionSlice, chosen: frozenset[bytes], repairs: frozenset[bytes], act: Act) -> Settlement:
    """All that moves in one partition: the chosen pairs by their fate, the others as what still waits."""
    into = Settlement(position=part.log.position)
    if act.fate == "confirmed":
        _confirm_plain(into, part, act.now_ms)
    else:
        part.materialize()
    joined = len(part.log.plain)
    for pair, reached in part.verdicts.items():
        joined += _live(reached)
        into.totals["stale"] += reached.stale
        if reached.op is None:
            _leave(into, part, pair, None)
        elif pair not in chosen or act.fate == "kept":
            _keep(into, part, pair, reached, suspect=0)
        elif act.fate == "suspect":
            _keep(into, part, pair, reached, suspect=act.suspect)
        elif act.fate == "confirmed":
            _confirm(into, part, pair, reached, act)
        else:
            _dead_letter(into, part, pair, reached, act)
    for entry in part.log.malformed:
        into.letters += (b"", b"", _malformed_letter(entry, act.now_ms))
        into.totals[dead_counter(entry.reason)] += 1
    waited = sum(state.live for state in part.pending.values())
    into.totals["events"] += part.log.entries
    into.totals["dead_lettered"] += len(part.log.malformed)
    into.totals["coalesced"] += part.log.entries - len(part.log.malformed) + waited - joined
    _settle_marks(into, part, repairs, act)
    return into


def _live(reached: Verdict) -> int:
    """How many changes the pair's joined state stands for, before anything stale dropped out."""
    left = reached.state.live if reached.state is not None else 0
    return left + reached.stale


def _leave(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict | None) -> None:
    """The pair waits no more, but for what its verdict leaves for a later request."""
    if reached is not None and reached.rest is not None:
        # The rest is tried on its own: suspicion fell on the record that has just ended.
        into.keep += (pair, encode_state(reached.rest._replace(suspect=0)))
    elif pair in part.pending:
        into.drop.append(pair)


def _keep(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, suspect: int) -> None:
    state = reached.state
    if state is None:
        return
    if suspect:
        state = state._replace(suspect=suspect)
    if part.pending.get(pair) != state:
        into.keep += (pair, encode_state(state))


def _confirm_plain(into: Settlement, part: PartitionSlice, now_ms: int) -> None:
    """What is plain is in the batch: of each pair the record alone was to be said, and nothing else is known."""
    upserts, deletes = len(part.log.plain.upserts), len(part.log.plain.deletes)
    into.ledger += part.log.plain.ledger()
    into.totals["records_confirmed"] += upserts + deletes
    into.totals["upserts_confirmed"] += upserts
    into.totals["deletes_confirmed"] += deletes
    count_times(into.totals, "upsert", (entry_id for _, entry_id in part.log.plain.upserts.values()), now_ms)
    count_times(into.totals, "delete", (entry_id for _, entry_id in part.log.plain.deletes.values()), now_ms)


def _confirm(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, act: Act) -> None:
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
        count_time(into.totals, reached.op, side.first_ms, act.now_ms)
    reach = state is not None and (mark is not None or state.first_ms <= part.late_to_ms)
    if part.late_until_ms > act.begun_ms and reach:
        # Somebody whose lease expired may have sent this pair either way; the last word is said once that is over.
        into.late += (pair, part.late_until_ms, part.late_until_ms)
    elif mark is not None and mark[1].until_ms <= act.begun_ms:
        into.clear += (pair, mark[0])
    _leave(into, part, pair, reached)


def _dead_letter(into: Settlement, part: PartitionSlice, pair: bytes, reached: Verdict, act: Act) -> None:
    known = part.remembered(pair)
    into.letters += (pair, encode_remembered(known) if known else b"", _refused_letter(pair, reached, act))
    into.totals["dead_lettered"] += 1
    into.totals[dead_counter(REFUSED)] += 1
    into.totals["superseded"] += reached.superseded
    _leave(into, part, pair, reached)


def _settle_marks(into: Settlement, part: PartitionSlice, repairs: frozenset[bytes], act: Act) -> None:
    for pair in part.past:
        into.clear += (pair, part.marks[pair][0])
    for pair in repairs:
        if act.fate == "refused":  # the endpoint never accepts it, so no request could have changed it either
            into.clear += (pair, part.marks[pair][0])
        elif act.fate != "confirmed":
            continue
        elif part.late_until_ms > act.begun_ms:
            # This repair may itself have been sent before, by somebody whose lease expired.
            into.late += (pair, part.late_until_ms, part.late_until_ms)
        else:
            into.clear += (pair, part.marks[pair][0])
        if act.fate == "confirmed":
            into.totals["repairs"] += 1


def _malformed_letter(entry: Malformed, now_ms: int) -> bytes:
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
            "since": now_ms,
            "entry": entry.entry_id.decode(),
            "entry_ms": entry_time_ms(entry.entry_id),
        }
    )


def _side(reached: Verdict) -> Side | None:
    """The changes that the verdict's record stands for."""
    state = reached.state
    return None if state is None else state.delete if reached.op == "delete" else state.upsert


def _refused_letter(pair: bytes, reached: Verdict, act: Act) -> bytes:
    side = _side(reached)
    owner, contact = split_pair(pair)
    refusal = act.refusal or Refusal("", "", "")
    return orjson.dumps(
        {
            "owner": owner.decode(),
            "contact": contact.decode(),
            "op": reached.op,
            # Where the newest of them carries no time, the letter has that of its entry: a redrive counts from it.
            "at": (max(side.at, side.entry_ms) if side.at else None) if side else None,
            "source": _readable(side.source) or None if side else None,
            "reason": REFUSED,
            "code": refusal.code or None,
            "field": refusal.field or None,
            "message": refusal.message or None,
            "since": act.now_ms,
            "entry": None,
            "entry_ms": (side.entry_ms or side.first_ms) if side else None,
        }
    )


def _readable(raw: bytes) -> str:
    """As far as it is readable: what is no UTF-8 is shown escaped, what is too long is cut."""
    return raw[:1024].decode("utf-8", "backslashreplace")


def _number(raw: bytes | None) -> int | None:
    number = int(raw) if raw is not None and raw.isdigit() and len(raw) <= _NUMBER_DIGITS else None
    return number if number is None or number < 2**63 else None
