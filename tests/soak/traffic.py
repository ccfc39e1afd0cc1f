"""Several producers at once: hot pairs and cold ones, late and doubled changes, some without time, some malformed."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Protocol

import redis

from producers import AsyncContactProducer, ContactChange, ContactProducer
from producers.contract.change import partition_of
from producers.send.errors import NotAccepted
from worker.store.client import connect, round_trip
from worker.store.replies import checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from producers.contract.change import Lane, Op
    from producers.settings import ProducerSettings

POISONABLE: Final = tuple(f"p{number}" for number in range(10))
"""Contact ids that the endpoint is told to refuse at times."""

PEOPLE: Final = {
    kind: tuple(f"{kind}-person-{number:03}" for number in range(40)) for kind in ("owner", "contact", "either")
}
"""Ids of people who are erased, by what they are in what is said of them. They are looked for in every key later."""

EXPECTED: Final = b"soak-expects"
"""An unknown field, which is ignored: beside it stands the reason for which the entry is to become a dead letter."""

LATEST_MS: Final = 10_000
"""How old the oldest late change is when it is said."""

AHEAD_MS: Final = 2_000
"""By how much the clock of some source is wrong."""

BULK_SHARE: Final = 0.15
"""How much of what applications say takes the bulk lane, of the same pairs as all else."""

IMPORT_CHUNK: Final = 1_000

PAUSE_SECONDS: Final = 0.2
"""Time between two attempts of a producer that Redis does not take changes from."""

Fields = dict[Any, Any]
"""Of an entry; redis-py's own type of them is a dict of anything that it can write."""

_ODD: Final = ("ü", "a b", "名前", "x:{7}", "🙂", "-", "owner|contact")


@dataclass(slots=True)
class Acknowledged:
    """What producers were told.

    Attributes:
        ids: partition and id of entries that Redis said it appended.
        accepted: how many changes it accepted, also those whose ids a broken call did not give back.
        refused, uncertain: how many times changes were not accepted, or perhaps not; each was sent again.
        died: producers that ended with an error of their own, in words.
    """

    ids: set[tuple[int, str]] = field(default_factory=set)
    accepted: int = 0
    refused: int = 0
    uncertain: int = 0
    died: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, owners: Iterable[str], ids: Sequence[str], partitions: int) -> None:
        """Takes note of accepted entries."""
        where = [(partition_of(owner, partitions), each) for owner, each in zip(owners, ids, strict=True)]
        with self.lock:
            self.ids.update(where)
            self.accepted += len(ids)

    def note_failure(self, error: NotAccepted) -> None:
        """Takes note of what a call said that failed."""
        with self.lock:
            self.accepted += error.accepted
            self.refused += len(error.refused)
            self.uncertain += len(error.uncertain)


class Stamped:
    """Changes of an application that says when each happened, or lets its producer say so.

    Args:
        draw: its chance.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._recent: deque[ContactChange] = deque(maxlen=200)

    def some(self) -> list[ContactChange]:
        """A few more."""
        return [self._one() for _ in range(min(60, int(self._draw.expovariate(0.1)) + 1))]

    def _one(self) -> ContactChange:
        kind = self._draw.random()
        now_ms = int(time.time() * 1000)
        if kind < 0.05 and self._recent:
            return self._draw.choice(self._recent)  # said before: the very same change once more
        at = None
        if kind < 0.15:
            at = now_ms - self._draw.randrange(LATEST_MS)
        elif kind < 0.25:
            at = now_ms + self._draw.randrange(AHEAD_MS)
        owner, contact = self._pair()
        op: Op = "delete" if self._draw.random() < 0.4 else "upsert"
        lane: Lane | None = "bulk" if self._draw.random() < BULK_SHARE else None
        change = ContactChange(owner=owner, contact=contact, op=op, at=at, lane=lane)
        if at is not None:
            self._recent.append(change)
        return change

    def _pair(self) -> tuple[str, str]:
        draw, kind = self._draw, self._draw.random()
        if kind < 0.01:
            return f"w{draw.randrange(50)}", draw.choice(POISONABLE)
        if kind < 0.02:
            return draw.choice(_ODD), draw.choice(_ODD)
        if kind < 0.08:
            return _person(draw)
        if kind < 0.35:
            return f"h{draw.randrange(5)}", f"h{draw.randrange(4)}"
        if kind < 0.65:
            return f"w{draw.randrange(50)}", f"w{draw.randrange(20)}"
        return f"c{draw.randrange(20_000)}", f"c{draw.randrange(10)}"


def _person(draw: random.Random) -> tuple[str, str]:
    """A pair with somebody who is erased one day; the first of them are said most, as they are erased first."""
    kind = draw.choice(tuple(PEOPLE))
    person = PEOPLE[kind][min(draw.randrange(40), draw.randrange(40))]
    as_owner = kind == "owner" or (kind == "either" and draw.random() < 0.5)
    return (person, f"w{draw.randrange(8)}") if as_owner else (f"w{draw.randrange(8)}", person)


class Raw:
    """Entries as a program in any language would append them: without time, and at times wrong.

    Args:
        draw: its chance.
        partitions: how many there are.
    """

    def __init__(self, draw: random.Random, partitions: int) -> None:
        self._draw = draw
        self._partitions = partitions

    def some(self) -> list[tuple[int, Fields]]:
        """A few entries, each with the partition whose log it goes to."""
        return [self._one() for _ in range(self._draw.randrange(1, 12))]

    def _one(self) -> tuple[int, Fields]:
        draw = self._draw
        mixed = draw.random() < 0.1
        owner, contact = f"{'m' if mixed else 'u'}{draw.randrange(40)}", f"u{draw.randrange(5)}"
        op = "delete" if draw.random() < 0.4 else "upsert"
        fields: Fields = {b"owner": owner.encode(), b"contact": contact.encode(), b"op": op.encode()}
        if mixed and draw.random() < 0.5:
            fields[b"at"] = b"%d" % (time.time() * 1000)
        partition = partition_of(owner, self._partitions)
        return (partition, fields) if draw.random() > 0.03 else self._malformed(partition, fields)

    def _malformed(self, partition: int, fields: Fields) -> tuple[int, Fields]:
        wrongs: list[tuple[bytes, Fields]] = [
            (b"bad_op", {b"op": b"upsrt"}),
            (b"bad_at", {b"at": b"12.5"}),
            (b"at_out_of_range", {b"at": b"%d" % (time.time() + 3600)}),  # seconds by mistake
            (b"bad_owner", {b"owner": b"x" * 300}),
            (b"bad_contact", {b"contact": b"\x00"}),
            (b"wrong_partition", {}),
        ]
        reason, wrong = self._draw.choice(wrongs)
        if reason == b"wrong_partition":
            partition = (partition + 1) % self._partitions
        return partition, fields | wrong | {EXPECTED: reason}


class Import:
    """Many changes in bulk, said as fast as Redis takes them: pairs of their own, and some that others change too.

    Args:
        draw: its chance.
        changes: how many.
    """

    def __init__(self, draw: random.Random, changes: int) -> None:
        self._draw = draw
        self._left = changes

    @property
    def over(self) -> bool:
        """Whether all was said."""
        return self._left <= 0

    def some(self) -> list[ContactChange]:
        """The next of them."""
        now_ms = int(time.time() * 1000)
        chunk = [self._one(number, now_ms) for number in range(self._left, max(0, self._left - IMPORT_CHUNK), -1)]
        self._left -= len(chunk)
        return chunk

    def _one(self, number: int, now_ms: int) -> ContactChange:
        kind = self._draw.random()
        if kind < 0.005:
            owner, contact = _person(self._draw)
        elif kind < 0.02:
            owner, contact = f"h{self._draw.randrange(5)}", f"h{self._draw.randrange(4)}"
        else:
            owner, contact = f"i{number % 500}", f"i{number}"
        op: Op = "delete" if self._draw.random() < 0.1 else "upsert"
        return ContactChange(owner=owner, contact=contact, op=op, at=now_ms, lane="bulk")


class Traffic:
    """The producers, each in a thread, from `start` until `stop`.

    Args:
        settings: what they work with.
        partitions: how many there are.
        seed: of what they say.
        rate: changes a second, of all of them together.

    Attributes:
        acknowledged: what they were told.
    """

    def __init__(self, settings: ProducerSettings, partitions: int, seed: int, rate: float) -> None:
        self.acknowledged = Acknowledged()
        self._settings = settings
        self._partitions = partitions
        self._seed = seed
        self._stop = threading.Event()
        shares = {"app-0": 0.3, "app-1": 0.3, "async": 0.2, "raw": 0.2}
        self._rates = {name: share * rate for name, share in shares.items()}
        self._unsent: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(name,), name=name, daemon=True) for name in shares]

    def start(self) -> None:
        """Starts saying things."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> int:
        """Says nothing new any more, but all that was not accepted again; returns how much of it is left in the end."""
        self._stop.set()
        ends = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        return sum(self._unsent.values())

    def _run(self, name: str) -> None:
        draw = random.Random(f"{self._seed} {name}")
        try:
            if name == "raw":
                self._append(draw)
            elif name == "async":
                asyncio.run(self._send_async(draw))
            else:
                self._send(name, draw)
        except Exception as error:  # noqa: BLE001 - whatever ends a producer is what the soak looks for
            self.acknowledged.died.append(f"producer {name}: {type(error).__name__}: {error}")

    def _turns(self, name: str, draw: random.Random) -> Iterator[bool]:
        """Turn after turn at the producer's pace, at times much faster; ends when told to and all is accepted.

        Each says whether something new is to be said.
        """
        until, faster = 0.0, 1.0
        while not self._stop.is_set() or self._unsent[name]:
            yield not self._stop.is_set()
            if time.monotonic() > until:
                until, faster = time.monotonic() + draw.uniform(0.5, 5.0), 5.0 if draw.random() < 0.1 else 0.8
            if self._unsent[name]:
                time.sleep(PAUSE_SECONDS)
            else:
                self._stop.wait(10.0 / (self._rates[name] * faster))

    def _send(self, name: str, draw: random.Random) -> None:
        source, unsent = Stamped(draw), _Unsent()
        with ContactProducer(settings=self._settings) as producer:
            for new in self._turns(name, draw):
                changes = unsent.and_some(source if new else None)
                try:
                    self._note(changes, producer.send(changes))
                    unsent.clear()
                except NotAccepted as error:
                    unsent.keep(self.acknowledged, error)
                self._unsent[name] = len(unsent.changes)

    def bring_in(self, changes: int, draw: random.Random) -> None:
        """Imports so many changes, in a thread of its own that ends by itself."""
        name = f"import-{len(self._threads)}"
        thread = threading.Thread(target=self._import, args=(name, Import(draw, changes)), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _import(self, name: str, source: Import) -> None:
        try:
            unsent = _Unsent()
            with ContactProducer(settings=self._settings) as producer:
                while unsent.changes or not source.over:
                    changes = unsent.and_some(source)
                    try:
                        self._note(changes, producer.send(changes))
                        unsent.clear()
                    except NotAccepted as error:
                        unsent.keep(self.acknowledged, error)
                        time.sleep(PAUSE_SECONDS)
                    self._unsent[name] = len(unsent.changes)
        except Exception as error:  # noqa: BLE001 - whatever ends a producer is what the soak looks for
            self.acknowledged.died.append(f"producer {name}: {type(error).__name__}: {error}")

    async def _send_async(self, draw: random.Random) -> None:
        source, unsent = Stamped(draw), _Unsent()
        async with AsyncContactProducer(settings=self._settings) as producer:
            for new in self._turns("async", draw):
                changes = unsent.and_some(source if new else None)
                try:
                    self._note(changes, await producer.send(changes))
                    unsent.clear()
                except NotAccepted as error:
                    unsent.keep(self.acknowledged, error)
                self._unsent["async"] = len(unsent.changes)

    def _note(self, changes: Sequence[ContactChange], ids: Sequence[str]) -> None:
        self.acknowledged.note((change.owner for change in changes), ids, self._partitions)

    def _append(self, draw: random.Random) -> None:
        source = Raw(draw, self._partitions)
        keys, told = self._settings.keys, self.acknowledged
        client = connect(self._settings.redis_url, timeout_seconds=5.0)
        waiting: deque[tuple[int, Fields]] = deque()
        for new in self._turns("raw", draw):
            waiting.extend(source.some() if new and not waiting else ())
            try:
                while waiting:
                    partition, fields = waiting[0]
                    words = ("XADD", keys.events(partition), "*", *chain.from_iterable(fields.items()))
                    entry: Any = checked(round_trip(client, [words], self._settings.wait_replicas)[0])
                    waiting.popleft()
                    with told.lock:
                        told.ids.add((partition, entry.decode()))
                        told.accepted += 1
            except redis.ResponseError:
                told.refused += 1
            except (redis.RedisError, OSError):
                told.uncertain += 1  # sent again: a change without a time is then said twice
            self._unsent["raw"] = len(waiting)
        client.close()


class Source(Protocol):
    """Where changes come from."""

    def some(self) -> list[ContactChange]:
        """A few more."""


class _Unsent:
    """What was not accepted, or perhaps not, as it was stamped."""

    def __init__(self) -> None:
        self.changes: tuple[ContactChange, ...] = ()

    def and_some(self, source: Source | None) -> list[ContactChange]:
        """All of it; and a few changes more if nothing is left of it."""
        return [*self.changes, *(source.some() if source is not None and not self.changes else ())]

    def keep(self, told: Acknowledged, error: NotAccepted) -> None:
        told.note_failure(error)
        self.changes = error.changes

    def clear(self) -> None:
        self.changes = ()
