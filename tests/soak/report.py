"""What a soak came to, for people (Markdown) and for machines (JSON)."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context
from typing import TYPE_CHECKING, Any, Final

import orjson

from tests.proof.published import made
from tests.soak.verdict import bound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.soak.soak import Ran
    from tests.soak.verdict import Recovery, Verdict

WRONG_SHOWN: Final = 50
"""Most of what is wrong that is told in full."""

_OPTIONS: Final = ("seconds", "seed", "workers", "rate", "only", "on", "wait_replicas")

_ON: Final = {
    "redis": "one Redis",
    "sentinel": "a master and two replicas with sentinels",
    "cluster": "a cluster of six",
}

_MEBIBYTE: Final = 1 << 20


def write_report(directory: Path, ran: Ran, verdict: Verdict) -> Path:
    """Writes both files, and returns the one for people."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "soak.json").write_bytes(orjson.dumps(as_json(ran, verdict), option=orjson.OPT_INDENT_2))
    path = directory / "soak.md"
    path.write_text("\n".join(as_markdown(ran, verdict)) + "\n", encoding="utf-8")
    return path


def as_json(ran: Ran, verdict: Verdict) -> dict[str, Any]:
    """All of it."""
    peaks = ran.seen.peaks
    return {
        "made": made(),
        "options": {name: getattr(ran.options, name) for name in _OPTIONS},
        "settings": ran.settings,
        "appendfsync": ran.appendfsync,
        "previous_release": ran.previous,
        "seconds": ran.ended - ran.began,
        "wrong": [each._asdict() for each in verdict.wrong],
        "counts": dict(verdict.counts),
        "bounds_95": {name: bound(verdict.counts[name]) for name in ("accepted", "pairs", "applied")},
        "faults": {
            kind: {**each._asdict(), "bound_95": bound(each.times)} for kind, each in verdict.recoveries.items()
        },
        "duplicates": dict(verdict.duplicates),
        "totals": dict(ran.status.totals) if ran.status else None,
        "endpoint": ran.counts,
        "worker_exits": {
            "by_soak": dict(ran.exits.by_nemesis),
            "stalled": ran.exits.stalled,
            "by_celery": ran.exits.by_celery,
            "barred": ran.exits.barred,
            "wrong": ran.exits.wrong,
            "wrong_of_previous_release": ran.exits.previous,
        },
        "worker_log": dict(ran.said),
        "erasures": [
            {"seconds": None if each.ended is None else each.ended - each.begun, "calls": each.calls}
            for each in ran.erasures
        ],
        "slowest_stop_seconds": ran.exits.slowest_seconds,
        "peaks": {name: getattr(peaks, name) for name in ("redis", "worker", "workers", "backlog", "pending")},
        "struck": [
            {"kinds": each.kinds, "seconds": each.healed - each.begun, "recovered_seconds": each.recovered_seconds}
            for each in ran.struck
        ],
    }


def as_markdown(ran: Ran, verdict: Verdict) -> Iterator[str]:
    """The same for people, line by line."""
    options, counts = ran.options, verdict.counts
    yield f"# Soak of {options.seconds / 60:.1f} minutes, seed {options.seed}"
    yield ""
    yield f"{'Nothing is wrong.' if not verdict.wrong else f'{len(verdict.wrong)} things are wrong.'} "
    yield (
        f"{options.workers} workers, {counts['accepted']:,} changes of {counts['pairs']:,} pairs,"
        f" {counts['requests']:,} requests, {sum(each.times for each in verdict.recoveries.values())} faults of"
        f" {len(verdict.recoveries)} kinds. On {_ON[options.on]}, CONTACT_SYNC_WAIT_REPLICAS={options.wait_replicas};"
        f" appendfsync {ran.appendfsync}."
    )
    yield from _wrong(verdict)
    yield from _counts(verdict)
    yield from _faults(verdict)
    yield from _rest(ran, verdict)


def _wrong(verdict: Verdict) -> Iterator[str]:
    if not verdict.wrong:
        return
    yield from ("", "## What is wrong", "")
    for each in verdict.wrong[:WRONG_SHOWN]:
        yield from ("```", f"{each.kind}: {each.says}", "```")
    if len(verdict.wrong) > WRONG_SHOWN:
        yield f"… and {len(verdict.wrong) - WRONG_SHOWN} more, in soak.json."


def _counts(verdict: Verdict) -> Iterator[str]:
    yield from ("", "## What was checked", "", "| | |", "| --- | --- |")
    yield from (f"| {name} | {number:,} |" for name, number in verdict.counts.items())
    yield ""
    yield "Where none of n failed, with 95 % confidence fewer than 3/n do:"
    yield ""
    for name, what in (("accepted", "changes lost"), ("pairs", "pairs with a wrong end"), ("applied", "wrong records")):
        yield f"- {what}: {_share(bound(verdict.counts[name]))}"


def _faults(verdict: Verdict) -> Iterator[str]:
    yield from ("", "## Faults", "")
    yield "Recovery: from healing until all that had been accepted before was confirmed; of those that struck alone."
    yield "Requests: those that reached the endpoint while it lasted. Bound: 3/n, as above, for one to do harm."
    yield ""
    yield "| fault | times | recovery p50 | p99 | max | lasted, in all | requests | bound |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for kind, each in verdict.recoveries.items():
        yield f"| {kind} | {' | '.join(_cells(each))} |"


def _cells(each: Recovery) -> list[str]:
    times = f"{each.times}" if each.times == each.alone else f"{each.times} ({each.alone} alone)"
    took = [_seconds(one) for one in (each.p50, each.p99, each.longest)]
    return [times, *took, _seconds(each.outage_seconds), f"{each.requests}", _share(bound(each.times))]


def _rest(ran: Ran, verdict: Verdict) -> Iterator[str]:
    peaks = ran.seen.peaks
    yield from ("", "## Records sent again though nothing was said since", "")
    yield from (f"- {cause}: {number:,}" for cause, number in sorted(verdict.duplicates.items()))
    if not verdict.duplicates:
        yield "None."
    yield from _erasures(ran)
    yield from ("", "## Peaks", "")
    yield f"- Redis: {peaks.redis / _MEBIBYTE:.1f} MiB"
    yield f"- one worker with its children: {peaks.worker / _MEBIBYTE:.0f} MiB"
    yield f"- all workers: {peaks.workers / _MEBIBYTE:.0f} MiB"
    yield f"- waiting entries: {peaks.backlog:,}; waiting pairs: {peaks.pending:,}"
    yield from ("", "## Workers", "")
    yield from (f"- {why}: {times}" for why, times in sorted(ran.exits.by_nemesis.items()))
    yield f"- ended because they stopped consuming: {ran.exits.stalled}"
    yield f"- ended by a fault of Celery's own while its broker went away or refused writes: {ran.exits.by_celery}"
    yield f"- slowest end after SIGTERM: {_seconds(ran.exits.slowest_seconds)}"
    yield f"- ended because they are of the previous release ({ran.previous or 'not here'}): {ran.exits.barred}"
    yield from (f"- of the previous release: {each}" for each in ran.exits.previous)
    yield from ("", "What they logged above the level of information:", "")
    yield from (f"- {event}: {times:,}" for event, times in sorted(ran.said.items()))


def _erasures(ran: Ran) -> Iterator[str]:
    took = sorted(each.ended - each.begun for each in ran.erasures if each.ended is not None)
    if took:
        calls = sum(each.calls for each in ran.erasures)
        yield from ("", "## Erasures", "")
        yield f"{len(took)} people were erased in {calls} calls of `contact-sync erase`; the median took"
        yield f"{_seconds(took[len(took) // 2])}, the longest {_seconds(took[-1])}."


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _share(value: float | None) -> str:
    """An upper bound with two digits, rounded up: rounded down it would claim too much."""
    if value is None:
        return ""
    return f"{float(Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value)):.2g}"
