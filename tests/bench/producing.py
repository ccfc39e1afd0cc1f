"""Producing: our clients beside redis-py's own, in one process each, the same changes, in turn."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

from producers import AsyncContactProducer, ContactChange, ContactProducer
from producers.contract.change import partition_of
from tests.bench.changes import changes
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.changes import Change

PARTITIONS = 64
_CHUNK = 1_000
_TASKS = 200
_KEYS = [f"contact-sync:{{{p}}}:events" for p in range(PARTITIONS)]


def _fields(change: Change) -> Any:
    return {"owner": change.owner, "contact": change.contact, "op": change.op, "at": change.at}


def plain_pipeline(url: str, given: Sequence[Change]) -> None:
    """What one writes with redis-py: a pipeline of XADDs, a thousand at a time; nothing is checked, nothing stamped."""
    client = redis.Redis.from_url(url)
    pipe = client.pipeline(transaction=False)
    for i, change in enumerate(given, 1):
        pipe.xadd(_KEYS[partition_of(change.owner, PARTITIONS)], _fields(change))
        if i % _CHUNK == 0:
            pipe.execute()
    pipe.execute()
    client.close()


def send_mappings(url: str, given: Sequence[Change]) -> None:
    """`ContactProducer.send` of mappings with the same times: checked."""
    with ContactProducer(url) as contacts:
        contacts.send({"owner": c.owner, "contact": c.contact, "op": c.op, "at": c.at} for c in given)


def send_changes(url: str, given: Sequence[Change]) -> None:
    """`ContactProducer.send` of `ContactChange`s, which check themselves, and stamped."""
    with ContactProducer(url) as contacts:
        contacts.send(ContactChange(owner=c.owner, contact=c.contact, op=c.op) for c in given)  # type: ignore[arg-type]


def bare_xadds(url: str, given: Sequence[Change]) -> None:
    """One XADD a round trip."""
    client = redis.Redis.from_url(url)
    for change in given:
        client.xadd(_KEYS[partition_of(change.owner, PARTITIONS)], _fields(change))
    client.close()


def single_upserts(url: str, given: Sequence[Change]) -> None:
    """One `upsert` a round trip."""
    with ContactProducer(url) as contacts:
        for change in given:
            contacts.upsert(change.owner, change.contact)


def async_in_turn(url: str, given: Sequence[Change]) -> None:
    """Single upserts of one task, each awaited."""

    async def run() -> None:
        async with AsyncContactProducer(url) as contacts:
            for change in given:
                await contacts.upsert(change.owner, change.contact)

    asyncio.run(run())


def async_tasks(url: str, given: Sequence[Change]) -> None:
    """The same by 200 tasks at once."""

    async def say(contacts: AsyncContactProducer, some: Sequence[Change]) -> None:
        for change in some:
            await contacts.upsert(change.owner, change.contact)

    async def run() -> None:
        async with AsyncContactProducer(url) as contacts:
            await asyncio.gather(*(say(contacts, given[i::_TASKS]) for i in range(_TASKS)))

    asyncio.run(run())


# What is compared with what: (ours, theirs, changes, goal as a ratio of rates)
COMPARED: list[tuple[Callable[..., None], Callable[..., None], int, float]] = [
    (send_mappings, plain_pipeline, 100_000, 1.2),
    (send_changes, plain_pipeline, 100_000, 1.2),
    (single_upserts, bare_xadds, 10_000, 1 / 1.1),
    (async_tasks, async_in_turn, 10_000, 8.0),
]


def producing(rounds: int) -> list[dict[str, Any]]:
    """Each pair in turn, several times: medians of rates, of processor time a change, and of the ratios."""
    found = []
    for ours, theirs, asked, goal in COMPARED:
        # Each pair once: a second change of a pair within its millisecond waits for the next one to be stamped.
        given = list({(each.owner, each.contact): each for each in changes(asked, "distinct")}.values())
        count = len(given)
        measured: dict[str, list[tuple[float, float]]] = {ours.__name__: [], theirs.__name__: []}
        for _ in range(rounds):
            for each in (ours, theirs):
                with EmbeddedRedis(tcp=True) as server:
                    cpu, begun = time.process_time(), time.perf_counter()
                    each(server.url, given)
                    took = time.perf_counter() - begun
                    measured[each.__name__].append((count / took, (time.process_time() - cpu) / count * 1e6))
        rates = {name: statistics.median(rate for rate, _ in each) for name, each in measured.items()}
        cpus = {name: statistics.median(us for _, us in each) for name, each in measured.items()}
        pairs = zip(measured[ours.__name__], measured[theirs.__name__], strict=True)
        found.append(
            {
                "ours": ours.__name__,
                "theirs": theirs.__name__,
                "rate": rates[ours.__name__],
                "their_rate": rates[theirs.__name__],
                "cpu_us": cpus[ours.__name__],
                "their_cpu_us": cpus[theirs.__name__],
                "ratio": statistics.median(a[0] / b[0] for a, b in pairs),
                "goal": goal,
            }
        )
    return found


if __name__ == "__main__":
    for line in producing(3):
        print(line)  # noqa: T201
