"""The metrics for Prometheus. Each is read from Redis at the scrape: it covers the whole fleet and survives restarts.

docs/reference/metrics.md lists all of them; a test compares the two.
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

    from worker.admin.status import LaneStatus, Status
    from worker.serve.snapshots import Snapshot

PREFIX: Final = "contact_sync_"

# Name, help, and the counter in Redis.
_COUNTERS: Final = (
    ("changes_accepted", "Changes that Redis accepted.", "events"),
    ("changes_coalesced", "Changes merged into another change of the same pair and op.", "coalesced"),
    ("changes_superseded", "Changes overridden by a change of the other op of the same pair.", "superseded"),
    ("changes_stale", "Changes dropped because a newer change of the pair was already confirmed.", "stale"),
    ("changes_forgotten", "Changes removed by `forget`.", "forgotten"),
    ("changes_suppressed", "Upserts refused because somebody in the pair was erased.", "suppressed"),
    ("request_records", "Records in all requests that were sent, including retries and repairs.", "records_sent"),
    ("requests_retried", "Requests that failed and were or will be retried.", "retries"),
    ("repairs", "Records sent again because a late request may have undone them.", "repairs"),
    ("endpoint_inserted", "Contacts that the endpoint says it inserted.", "inserted"),
    ("endpoint_deleted", "Contacts that the endpoint says it deleted.", "deleted"),
)

_GAUGES: Final[tuple[tuple[str, str, Callable[[Status], float]], ...]] = (
    (
        "oldest_change_age_seconds",
        "Age of the oldest unconfirmed change; 0 if none waits.",
        lambda status: status.oldest_seconds or 0.0,
    ),
    (
        "oldest_delete_age_seconds",
        "Age of the oldest unconfirmed delete; 0 if none waits.",
        lambda status: status.oldest_delete_seconds or 0.0,
    ),
    (
        "waiting_changes",
        "Changes that were accepted and have no outcome yet.",
        lambda status: status.waiting_changes,
    ),
    ("backlog_entries", "Entries in the streams.", lambda status: status.backlog_events),
    ("inbox_entries", "Entries in the inbox.", lambda status: status.inbox_entries),
    ("pending_pairs", "Pairs that were read and are not confirmed.", lambda status: status.pending_pairs),
    ("dead_letters", "Dead letters that are stored now.", lambda status: status.dead_letters),
    ("parked_pairs", "Pairs that the endpoint refuses with an unknown code.", lambda status: status.parked),
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
    (
        "workers",
        "Workers that were seen in the last minute, each with all its processes.",
        lambda status: len(status.workers),
    ),
    (
        "workers_wanted",
        "Workers that the fleet needs, each with all its processes, for an autoscaler.",
        lambda status: status.workers_wanted or 0,
    ),
    ("ticker_alive", "Whether a worker's ticker is alive.", lambda status: status.worker_awake),
    (
        "redis_lost_changes",
        "Whether Redis lost changes that it had accepted, or somebody trimmed a log, until acknowledged.",
        lambda status: status.lost is not None,
    ),
    (
        "gate_wait_seconds",
        "Time until the next request to the endpoint is allowed; 0 if it is allowed now.",
        lambda status: status.gate.wait_ms / 1000,
    ),
    ("gate_failed_attempts", "Failed requests to the endpoint in a row.", lambda status: status.gate.attempts),
    ("endpoint_rate", "Most requests a second; 0 if there is no limit.", lambda status: status.gate.rate or 0.0),
    (
        "endpoint_rate_bound_seconds",
        "Time for which the rate has bound without a pause; 0 if it does not bind.",
        lambda status: (status.gate.now_ms - status.gate.rate_bound_ms) / 1000 if status.gate.rate_bound_ms else 0.0,
    ),
    (
        "endpoint_in_flight_limit",
        "Most requests that may be under way at once; 0 if there is no limit yet.",
        lambda status: status.gate.in_flight_limit or 0,
    ),
    ("endpoint_in_flight", "Requests that are under way.", lambda status: status.gate.in_flight),
    ("paused", "Whether an operator has paused deliveries.", lambda status: bool(status.gate.paused_ms)),
)


_LANE_GAUGES: Final[tuple[tuple[str, str, Callable[[Status, LaneStatus], float]], ...]] = (
    ("backlog_entries", "Entries in the streams, by lane.", lambda _, lane: lane.backlog_events),
    ("pending_pairs", "Pairs that were read and are not confirmed, by lane.", lambda _, lane: lane.pending_pairs),
    (
        "oldest_change_age_seconds",
        "Age of the oldest unconfirmed change, by lane; 0 if none waits.",
        lambda status, lane: status.seconds_since(lane.oldest_ms) or 0.0,
    ),
)


class Families(Collector):
    """Passes finished metric families to the library."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """Returns all of them."""
        return self._found


def families(snapshot: Snapshot, full_seconds: float) -> Iterator[Metric]:
    """Returns every metric family with its samples, from one snapshot."""
    status = snapshot.status
    for name, text, counter in _COUNTERS:
        yield CounterMetricFamily(PREFIX + name, text, value=status.counted.get(counter, 0))
    yield _confirmed(status)
    yield _split(
        "changes_dead", "Changes that became dead letters, by reason.", "reason", status, ("dead_lettered", "dead:")
    )
    yield _split("requests", "Requests that were sent, by outcome.", "outcome", status, ("requests", "requests:"))
    yield _times(status)
    for name, text, read in _GAUGES:
        yield GaugeMetricFamily(PREFIX + name, text, value=float(read(status)))
    yield from _lanes(status)
    yield from _gate(status)
    yield from _reconciled(snapshot.reconciled)
    memory = snapshot.memory
    yield _gauge("redis_memory_used_bytes", "Memory that Redis uses.", memory.used)
    yield _gauge("redis_memory_max_bytes", "Memory that Redis may use; 0 if it has no limit.", memory.full)
    yield _gauge(
        "redis_memory_full_seconds",
        "Time until Redis is full at the rate of the last ten minutes; +Inf if it does not grow.",
        full_seconds,
    )
    yield from families_without_redis(up=True)


def families_without_redis(*, up: bool) -> Iterator[Metric]:
    """Returns the metrics that need no Redis."""
    yield _gauge(
        "redis_up", "Whether Redis answered this scrape; if not, no other metric of the fleet is present.", float(up)
    )
    build = GaugeMetricFamily(
        PREFIX + "build_info", "Version of contact-sync that answers this scrape.", labels=["version"]
    )
    build.add_metric([version("contact-sync")], 1)
    yield build


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _confirmed(status: Status) -> Metric:
    family = CounterMetricFamily(
        PREFIX + "changes_confirmed", "Changes that the endpoint confirmed, by op.", labels=["op"]
    )
    for op in OPS:
        family.add_metric([op], status.totals[f"{op}s_confirmed"])
    return family


def _split(name: str, text: str, label: str, status: Status, of: tuple[str, str]) -> Metric:
    """Returns a total split by label. What older versions counted without the label is `unknown`."""
    total, prefix = of
    parts = {each.removeprefix(prefix): n for each, n in status.counted.items() if each.startswith(prefix)}
    rest = status.totals[total] - sum(parts.values())
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for value, number in sorted(parts.items()) + ([("unknown", rest)] if rest > 0 else []):
        family.add_metric([value], number)
    return family


def _times(status: Status) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "change_confirmation_seconds",
        "Time from Redis's acceptance of a change to its confirmation by the endpoint, by op.",
        labels=["op"],
    )
    for op in OPS:
        numbers, took_ms = times(status.counted, op)
        bounds = [str(floatToGoString(bound)) for bound in (*BOUNDS_SECONDS, float("inf"))]  # type: ignore[no-untyped-call] # the library has no types here
        family.add_metric([op], list(zip(bounds, accumulate(numbers), strict=True)), took_ms / 1000)
    return family


def _reconciled(run: Mapping[str, Any] | None) -> Iterator[Metric]:
    ended = 0.0 if run is None else run["ended"] / 1000
    yield _gauge(
        "reconcile_ended_timestamp_seconds",
        "Unix time at which the last reconciliation ended; 0 if there was none.",
        ended,
    )
    sent = GaugeMetricFamily(
        PREFIX + "reconcile_changes", "Changes that the last reconciliation needed, by op.", labels=["op"]
    )
    drift = GaugeMetricFamily(
        PREFIX + "reconcile_drift",
        "Contacts that the endpoint lacked or had in excess at the last reconciliation, by its own counts.",
        labels=["found"],
    )
    known: Mapping[str, Any] = run or {}
    for op in OPS if known else ():
        sent.add_metric([op], known[f"{op}s"])
    found = known.get("drift")  # only if the run waited for the delivery
    if found is not None:
        drift.add_metric(["missing"], found["inserted"])
        drift.add_metric(["too_many"], found["deleted"])
    yield sent
    yield drift


def _lanes(status: Status) -> Iterator[Metric]:
    for name, text, read in _LANE_GAUGES:
        family = GaugeMetricFamily(f"{PREFIX}lane_{name}", text, labels=["lane"])
        for lane, each in status.lanes.items():
            family.add_metric([lane], read(status, each))
        yield family


def _gate(status: Status) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        PREFIX + "gate_state",
        "State of the endpoint's gate: 1 for the current state, 0 for the others.",
        labels=["state"],
    )
    for name in get_args(State):
        state.add_metric([name], status.gate.state == name)
    yield state
    held = GaugeMetricFamily(PREFIX + "gate_held", "1 while the gate is held, by reason.", labels=["reason"])
    if status.gate.state == "held":
        held.add_metric([status.gate.reason], 1)
    yield held
