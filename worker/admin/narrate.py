"""The explanation of a pair: in words, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from worker.admin.explain import SCAN_ENTRIES
from worker.core.entry import Malformed
from worker.core.numbers import many, were
from worker.core.pair import state_of, verdict
from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.admin.explain import Entry, Explanation
    from worker.core.codec import Parked
    from worker.core.dead_letter import DeadLetter
    from worker.core.pair import PairState, Side


_LOGS: Final = {"live": "log", "bulk": "bulk log"}


def explanation_lines(found: Explanation) -> Iterator[str]:
    """The explanation, line by line."""
    yield from (f"in the inbox: {_entry(entry)}; {fate(found, entry)}" for entry in found.inbox)
    yield from (f"in the {_LOGS[entry.lane]}: {_entry(entry)}; {fate(found, entry)}" for entry in found.entries)
    if found.cut:
        entries = f"{many(found.cut, 'entry')} after the first {SCAN_ENTRIES:,} {were(found.cut)}"
        yield f"in the log: {entries} not read"
    if found.pending is not None:
        yield from (f"pending{_in_bulk(found)}: {line}" for line in _state(found.pending))
    if found.parked is not None:
        yield from (f"parked{_in_bulk(found)}: {line}" for line in _state(found.parked.state))
        yield f"parked {_refused(found.parked)}"
    if found.known is not None:
        yield f"confirmed: {found.known.op}" + _settled_up_to(found)
    if found.mark is not None:
        for op, until in (("upsert", found.mark.upsert_until_ms), ("delete", found.mark.delete_until_ms)):
            if until:
                yield f"late: an unanswered request may still {op} it until {iso_utc(until)}; then it is repaired"
    yield from (f"dead: {_letter(letter)}" for letter in found.letters)
    yield f"next: {'; '.join(next_steps(found))}"


def _in_bulk(found: Explanation) -> str:
    return " in bulk" if found.lane == "bulk" else ""


def fate(found: Explanation, entry: Entry) -> str:
    """What happens to a waiting entry of the pair, and why."""
    says, reached, known = entry.says, found.next, found.known
    if isinstance(says, Malformed):
        return "it becomes a dead letter"
    if known is not None and says.at and verdict(state_of(says.op, says.at, entry.time_ms), known, "resend").stale:
        newer_delete = says.at <= known.delete_at
        at = known.delete_at if newer_delete else known.upsert_at
        return f"it is stale: {'a delete' if newer_delete else 'an upsert'} at {iso_utc(at)} was settled"
    state = reached.state if reached is not None else None
    side = None if state is None else state.delete if says.op == "delete" else state.upsert
    if reached is None or state is None or side is None:
        return "nothing is sent for it"
    if says.op == "upsert" and reached.op == "delete":
        of = _at(state.delete.at if state.delete is not None else 0)
        if reached.rest is None or says.at <= (state.delete.at if state.delete is not None else 0):
            return f"it is superseded by the delete {of}, and ends with it"
        return f"it is later than the delete {of}, and is sent after that is confirmed"
    newest = says.at == side.at if says.at else entry.time_ms == side.entry_ms and not side.at
    return f"the next request sends it as {says.op}" if newest else f"it is joined with a newer {says.op}"


def next_steps(found: Explanation) -> Iterator[str]:
    """What happens to the pair next, and why."""
    reached = found.next
    if found.suppressed:
        yield "upserts of this pair are refused: somebody in it was erased"
    if reached is None:
        yield "nothing: this pair is unknown" if found.unknown else "nothing: no change of this pair waits"
        return
    if reached.stale:
        yield f"{reached.stale} dropped as stale: a newer change was confirmed"
    if reached.op is None:
        yield "nothing is sent"
        return
    yield f"a request sends {reached.op}"
    if reached.superseded:
        yield "the upsert ends with it: a delete wins over an upsert that is not known to be later"
    if reached.rest is not None:
        yield "the upsert is known to be later, so it is sent once the delete is confirmed"
    if found.parked is not None and not (found.inbox or found.entries):
        yield f"not before {iso_utc(found.parked.due_ms)}: it is parked"
    elif reached.state is not None and reached.state.suspect:
        yield "a batch with it was refused, so it is tried in a smaller batch"
    yield _when(found)


def _when(found: Explanation) -> str:
    gate = found.gate
    if gate.paused_ms:
        return f"deliveries are paused since {iso_utc(gate.paused_ms)}, until contact-sync resume"
    if gate.state != "ok":
        why = "; ".join(filter(None, [gate.reason, gate.error]))
        when = f"is tried again in {in_words(gate.wait_ms / 1000)}" if gate.wait_ms else "is tried again now"
        return f"the endpoint is {gate.state.replace('_', ' ')} ({why}) and {when}"
    return "a worker is working on its partition" if found.leased else "as soon as a worker takes its partition"


def _refused(parked: Parked) -> str:
    refused = parked.state.refused
    if refused is None:
        return f"until {iso_utc(parked.due_ms)}"
    field = f", field {refused.field}" if refused.field else ""
    times = "once" if refused.tries == 1 else f"{refused.tries:,} times"
    return (
        f"since {iso_utc(refused.since_ms)}: the endpoint refused it {times}, last with code {refused.code or 'none'}"
        f"{field}; it is tried again at {iso_utc(parked.due_ms)}, or at once if a newer change of it arrives"
    )


def _at(at: int) -> str:
    return f"at {iso_utc(at)}" if at else "without `at`"


def _from(source: str) -> str:
    return f", from {source}" if source else ""


def _entry(entry: Entry) -> str:
    came = f"entry {entry.id}, accepted {iso_utc(entry.time_ms)}"
    if isinstance(entry.says, Malformed):
        return f"{came}: {entry.says.reason}"
    source = entry.says.source.decode("utf-8", "replace")
    return f"{entry.says.op} {_at(entry.says.at)}, {came}{_from(source)}"


def _state(state: PairState) -> Iterator[str]:
    sides: tuple[tuple[str, Side | None], ...] = (("delete", state.delete), ("upsert", state.upsert))
    for op, side in sides:
        if side is not None:
            when = " and ".join(filter(None, [_at(side.at) if side.at else "", _at(0) if side.entry_ms else ""]))
            source = side.source.decode("utf-8", "replace")
            yield f"{op} {when}, waiting since {iso_utc(side.first_ms)}{_from(source)}"


def _settled_up_to(found: Explanation) -> str:
    known = found.known
    if known is None:
        return ""
    parts = [
        f"{op}s up to {iso_utc(at)} are settled"
        for op, at in (("delete", known.delete_at), ("upsert", known.upsert_at))
        if at
    ]
    return "".join(f"; {part}" for part in parts)


def _letter(letter: DeadLetter) -> str:
    said = ", ".join(filter(None, [letter.reason, letter.code, letter.field, letter.message]))
    outdated = "; outdated: a newer change was confirmed since" if letter.outdated else ""
    return f"{letter.id}: {letter.op or '?'} {_at(letter.at or 0)}, since {iso_utc(letter.since_ms)}: {said}{outdated}"


def explanation_json(found: Explanation) -> dict[str, Any]:
    """The fields of ``explain --json`` but for the pair and the delivery status."""
    gate, reached, known, mark = found.gate, found.next, found.known, found.mark
    return {
        "partition": found.partition,
        "waiting": [_entry_json(entry) for entry in found.entries],
        "inbox": [_entry_json(entry) for entry in found.inbox],
        "not_scanned": found.cut,
        "lane": found.lane,
        "pending": None if found.pending is None else _state_json(found.pending),
        "parked": None if found.parked is None else _parked_json(found.parked),
        "confirmed": None
        if known is None
        else {"op": known.op, "delete_at": known.delete_at or None, "upsert_at": known.upsert_at or None},
        "late": None
        if mark is None
        else {"upsert_until_ms": mark.upsert_until_ms or None, "delete_until_ms": mark.delete_until_ms or None},
        "dead_letters": [letter.as_json() for letter in found.letters],
        "next": None
        if reached is None
        else {
            "op": reached.op,
            "then": None if reached.rest is None else "upsert",
            "superseded": reached.superseded,
            "stale": reached.stale,
        },
        "why": list(next_steps(found)),
        "suppressed": found.suppressed,
        "endpoint": {"state": gate.state, "reason": gate.reason or None, "last_error": gate.error or None},
    }


def _entry_json(entry: Entry) -> dict[str, Any]:
    says = entry.says
    if isinstance(says, Malformed):
        return {"entry": entry.id, "op": None, "at": None, "source": None, "reason": says.reason}
    source = says.source.decode("utf-8", "replace") or None
    return {"entry": entry.id, "op": says.op, "at": says.at or None, "source": source, "reason": None}


def _parked_json(parked: Parked) -> dict[str, Any]:
    refused = parked.state.refused
    return {
        **_state_json(parked.state),
        "since": None if refused is None else iso_utc(refused.since_ms),
        "code": None if refused is None else refused.code or None,
        "field": None if refused is None else refused.field or None,
        "tries": None if refused is None else refused.tries,
        "next": iso_utc(parked.due_ms),
    }


def _state_json(state: PairState) -> dict[str, Any]:
    return {
        op: None
        if side is None
        else {
            "at": side.at or None,
            "without_at": bool(side.entry_ms),
            "since_ms": side.first_ms,
            "source": side.source.decode("utf-8", "replace") or None,
        }
        for op, side in (("delete", state.delete), ("upsert", state.upsert))
    }
