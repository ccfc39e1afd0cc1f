"""What Prometheus is told: each number read from Redis when it asks, so that it is the fleet's and outlives restarts.

docs/metrics.md is the table of all of them; a test keeps both the same.
"""

from __future__ import annotations

from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from producers.contract.change import OPS
from worker.core.counters import BOUNDS_SECONDS, times
from worker.core.gate import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import Metric

    from worker.admin.status import Status
    from worker.serve.snapshots import Seen

PREFIX: Final = "contact_sync_"

# Name, help, and the counter that it is.
_COUNTERS: Final = (
    ("changes_accepted", "Changes that Redis accepted.", "events"),
    ("changes_coalesced", "Changes that ended in another one of the same pair and op.", "coalesced"),
    ("changes_superseded", "Changes that ended by the other op of the same pair.", "superseded"),
    ("changes_stale", "Changes dropped because newer knowledge was confirmed before.", "stale"),
    ("changes_forgotten", "Changes removed on demand by forget.", "forgotten"),
    ("request_records", "Records in the requests that were sent, repeated and repairing ones too.", "records_sent"),
    ("requests_retried", "Requests that were, or will be, tried again.", "retries"),
    ("repairs", "Records sent once more, because a late request may have undone them.", "repairs"),
    ("endpoint_inserted", "Contacts that the endpoint says it inserted.", "inserted"),
    ("endpoint_deleted", "Contacts that the endpoint says it deleted.", "deleted"),
)

_GAUGES: Final[tuple[tuple[str, str, Callable[[Status], float]], ...]] = (
    (
        "oldest_change_age_seconds",
        "How long the oldest unconfirmed change has waited; 0 where none waits.",
        lambda status: status.oldest_seconds or 0.0,
    ),
    (
        "oldest_delete_age_seconds",
        "How long the oldest unconfirmed delete has waited; 0 where none waits.",
        lambda status: status.oldest_delete_seconds or 0.0,
    ),
    (
        "waiting_changes",
        "Changes that were accepted and have not ended yet.",
        lambda status: status.waiting_changes,
    ),
    ("backlog_entries", "Entries in the streams.", lambda status: status.backlog_events),
    ("inbox_entries", "Entries in the inbox.", lambda status: status.inbox_entries),
    ("pending_pairs", "Pairs that were read and are not confirmed.", lambda status: status.pending_pairs),
    ("dead_letters", "Dead letters that lie there.", lambda status: status.dead_letters),
    ("partitions", "Partitions of the log.", lambda status: status.partitions),
    ("leases_held", "Partitions that a worker holds.", lambda status: status.in_flight),
    (
        "wrong_type_partitions",
        "Partitions with a key of the wrong type.",
        lambda status: len(status.wrong_type_partitions),
    ),
    (
        "replaced_partitions",
        "Partitions whose log was replaced, until acknowledged.",
        lambda status: len(status.replaced_partitions),
    ),
    ("workers", "Worker processes that were seen in the last minute.", lambda status: len(status.workers)),
    ("ticker_alive", "Whether the ticker of some worker is alive.", lambda status: status.worker_awake),
    (
        "redis_lost_changes",
        "Whether Redis came back without changes that it had accepted, until acknowledged.",
        lambda status: status.lost is not None,
    ),
    (
        "gate_wait_seconds",
        "Time until the endpoint may be tried again; 0 where it may be now.",
        lambda status: status.gate.wait_ms / 1000,
    ),
    ("gate_failed_attempts", "Failed attempts in a row at the endpoint.", lambda status: status.gate.attempts),
    ("paused", "Whether an operator has paused all deliveries.", lambda status: bool(status.gate.paused_ms)),
)


class Families(Collector):
    """Families as they were found, for the library to write."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._found


def families(seen: Seen, full_seconds: float) -> Iterator[Metric]:
    """Every family with its samples, as one look saw them."""
    status = seen.status
    for name, says, counter in _COUNTERS:
        yield CounterMetricFamily(PREFIX + name, says, value=status.counted.get(counter, 0))
    yield _confirmed(status)
    yield _apart(
        "changes_dead", "Changes that became dead letters, by reason.", "reason", status, ("dead_lettered", "dead:")
    )
    yield _apart("requests", "Requests that were sent, by outcome.", "outcome", status, ("requests", "requests:"))
    yield _times(status)
    for name, says, read in _GAUGES:
        yield GaugeMetricFamily(PREFIX + name, says, value=float(read(status)))
    yield from _gate(status)
    yield from _reconciled(seen.reconciled)
    memory = seen.memory
    yield _gauge("redis_memory_used_bytes", "Memory that Redis uses.", memory.used)
    yield _gauge("redis_memory_max_bytes", "Memory that Redis may use; 0 where it has no bound.", memory.full)
    yield _gauge(
        "redis_memory_full_seconds",
        "Time until Redis is full at the rate of the last ten minutes; +Inf where it does not grow.",
        full_seconds,
    )
    yield from standing(up=True)


def standing(*, up: bool) -> Iterator[Metric]:
    """What can be told without Redis."""
    yield _gauge("redis_up", "Whether Redis answered this scrape; without it nothing else is told.", float(up))
    build = GaugeMetricFamily(PREFIX + "build_info", "The version that answers.", labels=["version"])
    build.add_metric([version("contact-sync")], 1)
    yield build


def _gauge(name: str, says: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, says, value=value)


def _confirmed(status: Status) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "changes_confirmed", "Changes that the endpoint confirmed, by op.", labels=["op"]
    )
    for op in OPS:
        family.add_metric([op], status.totals[f"{op}s_confirmed"])
    return family


def _apart(name: str, says: str, label: str, status: Status, of: tuple[str, str]) -> Metric:
    """A total by what it is made of; what was counted before that was told apart is `unknown`."""
    total, prefix = of
    parts = {each.removeprefix(prefix): n for each, n in status.counted.items() if each.startswith(prefix)}
    rest = status.totals[total] - sum(parts.values())
    family = CounterMetricFamily(PREFIX + name, says, labels=[label])
    for value, number in sorted(parts.items()) + ([("unknown", rest)] if rest > 0 else []):
        family.add_metric([value], number)
    return family


def _times(status: Status) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "change_confirmation_seconds",
        "Time from Redis' acceptance of a change to its confirmation by the endpoint, by op.",
        labels=["op"],
    )
    for op in OPS:
        numbers, took_ms = times(status.counted, op)
        bounds = [str(floatToGoString(bound)) for bound in (*BOUNDS_SECONDS, float("inf"))]  # type: ignore[no-untyped-call] # the library leaves it untyped
        family.add_metric([op], list(zip(bounds, accumulate(numbers), strict=True)), took_ms / 1000)
    return family


def _reconciled(run: Mapping[str, Any] | None) -> Iterator[Metric]:
    ended = 0.0 if run is None else run["ended"] / 1000
    yield _gauge("reconcile_ended_timestamp_seconds", "When the last reconciliation ended; 0 where none did.", ended)
    sent = GaugeMetricFamily(
        PREFIX + "reconcile_changes", "Changes that the last reconciliation asked for, by op.", labels=["op"]
    )
    drift = GaugeMetricFamily(
        PREFIX + "reconcile_drift",
        "Contacts that the endpoint lacked, or had too many, by its own counts after the last reconciliation.",
        labels=["found"],
    )
    known: Mapping[str, Any] = run or {}
    for op in OPS if known else ():
        sent.add_metric([op], known[f"{op}s"])
    found = known.get("drift")  # only where it was waited for
    if found is not None:
        drift.add_metric(["missing"], found["inserted"])
        drift.add_metric(["too_many"], found["deleted"])
    yield sent
    yield drift


def _gate(status: Status) -> Iterator[Metric]:
    state = GaugeMetricFamily(PREFIX + "gate_state", "The endpoint's gate: 1 at the state it is in.", labels=["state"])
    for name in get_args(State):
        state.add_metric([name], status.gate.state == name)
    yield state
    held = GaugeMetricFamily(PREFIX + "gate_held", "1 while the gate is held, with its reason.", labels=["reason"])
    if status.gate.state == "held":
        held.add_metric([status.gate.reason], 1)
    yield held
