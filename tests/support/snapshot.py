"""A look as it might have been, with a number of its own in every place."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from worker.admin.status import TOTALS, LaneStatus, Part, Status
from worker.core.counters import count_time
from worker.core.gate import GateSnapshot
from worker.serve.snapshots import Memory, Snapshot

if TYPE_CHECKING:
    from worker.core.gate import State

T = 1_795_460_847_757


def view(state: State = "ok", reason: str = "", wait_ms: int = 0) -> GateSnapshot:
    return GateSnapshot(T, state, 1, wait_ms, None, reason, "", 0, attempts=3)


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
        "gate": gate or view(),
        "totals": {name: totals[name] for name in TOTALS},
        "wrong_type_partitions": [],
        "parts": [Part(11, 12, 14, T - 2500, T - 1500, leased=True), Part(0, 0, 0, None, None, leased=False)],
        "counted": totals,
    }
    run = {"ended": T, "upserts": 31, "deletes": 32, "drift": {"inserted": 33, "deleted": 34}}
    return Snapshot(1.0, Status(**(given | fields)), Memory(1000, 4000), run)
