"""Names whatever keeps deliveries from going on, as far as the status shows it, and says what to do next (pure)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from producers.settings import variable_of
from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.admin.status import Status
    from worker.core.gate import GateSnapshot

_TROUBLES: Final = {
    "broker_away": ("the broker does not answer: workers look for work by themselves, more slowly", "bring it back"),
    "broker_refuses": (
        "the broker refuses hints, or gives them to no worker: workers look for work by themselves, more slowly",
        "contact-sync check; the workers' log says why",
    ),
    "replicas_absent": (
        f"too few replicas follow a node: entries stay in the inbox, as {variable_of('wait_replicas')} says",
        "bring the replicas back; contact-sync check says how many follow",
    ),
}

_NAMED_MAX: Final = 8


class Obstacle(NamedTuple):
    """Something in the way of deliveries.

    Attributes:
        name: its name, the same in `status` and in `health`.
        message: what is wrong, without ids or secrets.
        todo: what to do next.
    """

    name: str
    message: str
    todo: str


def obstacles(found: Status) -> list[Obstacle]:
    """Everything that is in the way, the most far-reaching first."""
    return [*_of_fleet(found), *_of_endpoint(found.gate), *_of_partitions(found), *_of_workers(found)]


def _of_fleet(found: Status) -> Iterator[Obstacle]:
    if said := found.away_words():
        node = any(each.away for each in found.nodes)
        todo = "bring the node back, or let its replica take over" if node else "redis-cli --cluster fix"
        yield Obstacle("redis_partly_away", said, todo)
    if found.wrong_type_keys:
        yield Obstacle("wrong_type_keys", _foreign(found.wrong_type_keys), "find whose they are; rename or remove them")


def _of_endpoint(gate: GateSnapshot) -> Iterator[Obstacle]:
    if gate.paused_ms:
        since = iso_utc(gate.paused_ms)
        yield Obstacle("paused", f"an operator has paused deliveries, since {since}", "contact-sync resume")
    elif gate.state == "held":
        yield Obstacle("endpoint_held", gate_words(gate), "contact-sync check")
    elif gate.state == "backing_off":
        yield Obstacle("endpoint_backing_off", gate_words(gate), "nothing: it is tried again by itself")


def _of_partitions(found: Status) -> Iterator[Obstacle]:
    closed, full = found.closed_partitions, found.full_partitions
    for to in sorted(set(closed.values())):
        numbers = _listed(p for p in closed if closed[p] == to)
        said = f"the logs of partitions {numbers} are closed: a change to {to} partitions was cut off"
        yield Obstacle("closed_partitions", said, f"stop producers and workers, then contact-sync repartition {to}")
    foreign = [key for p, keys in found.foreign_keys.items() if p not in closed for key in keys]
    if foreign:
        yield Obstacle("wrong_type_partitions", _foreign(foreign), "find whose they are; rename or remove them")
    if found.open_partitions:
        numbers = _listed(found.open_partitions)
        said = f"the slots of partitions {numbers} are on their way between two nodes: these wait until that ends"
        yield Obstacle("slots_open", said, "nothing while they move; redis-cli --cluster fix if that was cut off")
    if full:
        said = f"in partitions {_listed(full)} there is no room for more dead letters, so their logs may wait"
        yield Obstacle("dead_letters_full", said, "contact-sync dead-letters redrive, or purge")


def _of_workers(found: Status) -> Iterator[Obstacle]:
    waits = found.backlog_events or found.pending_pairs or found.inbox_entries
    if waits and not found.worker_awake:
        yield Obstacle("no_worker", "no worker is awake", "contact-sync worker")
    told = {setting for each in found.workers for setting in each.settings}
    names = sorted(name for name, times in Counter(each.partition("=")[0] for each in told).items() if times > 1)
    if names:
        said = f"workers of this namespace differ in {', '.join(map(variable_of, names))}"
        yield Obstacle("mixed_settings", said, "give all of them the same, or another namespace each")
    for name in sorted({each.trouble for each in found.workers} & _TROUBLES.keys()):
        yield Obstacle(name, *_TROUBLES[name])


def gate_words(gate: GateSnapshot) -> str:
    """The state of the gate, its reason and the time of the next try."""
    why = f" ({gate.reason})" if gate.reason else ""
    tried = f"next try in {in_words(gate.wait_ms / 1000)}" if gate.wait_ms else "next try now"
    return f"the endpoint is {gate.state.replace('_', ' ')}{why}, {tried}"


def _foreign(keys: Iterable[str]) -> str:
    return f"keys with the wrong type, which something else wrote: {_listed(keys)}"


def _listed(items: Iterable[object]) -> str:
    every = [str(each) for each in items]
    more = f" and {len(every) - _NAMED_MAX:,} more" if len(every) > _NAMED_MAX else ""
    return ", ".join(every[:_NAMED_MAX]) + more
