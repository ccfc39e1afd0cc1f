"""A snapshot of a fleet, with a number of its own in every place; and a fleet in which nothing waits."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from worker.admin.status import TOTALS, LaneStatus, Part, Status
from worker.core.counters import count_time
from worker.core.gate import GateSnapshot
from worker.serve.snapshots import Memory, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.core.gate import State

T = 1_795_460_847_757


def gate_of(
    state: State = "ok", reason: str = "", wait_ms: int = 0, *, now_ms: int = T, attempts: int = 0
) -> GateSnapshot:
    return GateSnapshot(now_ms, state, 1, wait_ms, None, reason, "", 0, attempts)


def idle_status(*, totals: Mapping[str, int] | None = None, **fields: Any) -> Status:
    """The status while nothing waits, but for what is given; totals that are not given are 0."""
    idle: dict[str, Any] = {
        "partitions": 64,
        "backlog_events": 0,
        "pending_pairs": 0,
        "in_flight": 0,
        "oldest_ms": None,
        "dead_letters": 0,
        "worker_awake": True,
        "gate": gate_of(),
        "wrong_type_partitions": [],
    }
    return Status(**(idle | fields), totals=dict.fromkeys(TOTALS, 0) | dict(totals or {}))


def snapshot(gate: GateSnapshot | None = None, counted: dict[str, int] | None = None, **fields: Any) -> Snapshot:
    totals: Counter[str] = Counter({name: 100 + i for i, name in enumerate(TOTALS)})
    count_time(totals, "upsert", T - 300, T)
    totals |= Counter({"requests:confirmed": 90, "requests:retry": 7, "dead:refused": 4, "records_sent": 321})
    totals.update(counted or {})
    given: dict[str, Any] = {
        "partitions": 2,
        "backlog_events": 11,
        "pending_pairs": 12,
        "in_flight": 1,
        "oldest_ms": T - 2500,
        "lanes": {"live": LaneStatus(4, 5, T - 2500), "bulk": LaneStatus(7, 8, T - 9000)},
        "oldest_delete_ms": T - 1500,
        "dead_letters": 14,
        "worker_awake": True,
        "gate": gate or gate_of(attempts=3),
        "totals": {name: totals[name] for name in TOTALS},
        "wrong_type_partitions": [],
        "parts": [Part(11, 12, 14, T - 2500, T - 1500, leased=True), Part(0, 0, 0, None, None, leased=False)],
        "counted": totals,
    }
    run = {"ended": T, "upserts": 31, "deletes": 32, "drift": {"inserted": 33, "deleted": 34}}
    return Snapshot(1.0, Status(**(given | fields)), Memory(1000, 4000), run)
