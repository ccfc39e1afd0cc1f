"""What a soak came to, for people (Markdown) and for machines (JSON)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from tests.proof.pages import soak_run
from tests.proof.published import made
from tests.soak.verdict import bound

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.soak import Ran
    from tests.soak.verdict import Verdict

_OPTIONS: Final = ("seconds", "seed", "workers", "rate", "only", "on", "wait_replicas", "partitions")


def write_report(directory: Path, ran: Ran, verdict: Verdict) -> Path:
    """Writes both files, and returns the one for people."""
    directory.mkdir(parents=True, exist_ok=True)
    found = as_json(ran, verdict)
    (directory / "soak.json").write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    path = directory / "soak.md"
    path.write_text("\n".join(soak_run(found)) + "\n", encoding="utf-8")
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
