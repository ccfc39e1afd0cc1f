"""Erases a user, as owner and as contact: appends deletes, waits until the endpoint confirmed them, and leaves nothing.

First the user is suppressed. From then on no upsert goes out, and workers forget at once what they confirm of the user,
ledgers included (`worker.core.slice`). What remains is to append a delete for each pair of which something is stored,
and to search again until nothing is left. No progress is recorded, because what is left shows it: an interrupted run
continues when it is called again, and of two runs at once each finds the other's deletes waiting.

A partition is searched under its lease. So no earlier request is under way, nothing moves meanwhile, and two runs do
not append the same delete twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import id_fault, partition_of
from producers.contract.errors import ContactSyncError
from worker.admin.leasing import take_lease
from worker.admin.traces import Traces
from worker.core.codec import decode_parked, decode_state, encode_parked
from worker.core.entry import entry_time_ms, pair_of, split_pair
from worker.core.reasons import OF_RECORDS
from worker.core.settlement import Settlement
from worker.core.suppression import decode_until
from worker.store import scripts
from worker.store.client import round_trip
from worker.store.dead_letters import DeadLetters
from worker.store.log_form import recorded_form
from worker.store.replies import all_checked
from worker.store.suppressions import read_suppression, suppress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from producers.nodes.trip import Replicas
    from worker.core.codec import Parked
    from worker.core.dead_letter import DeadLetter
    from worker.core.inbox_map import InboxMap
    from worker.core.lease import Lease
    from worker.store.partitions import Partitions

_SEARCH_SECONDS: Final = 0.2
"""Shortest time between two searches for what is left."""

_SEARCH_MAX_SECONDS: Final = 5.0

_AT_LEAST_MS: Final = 60_000
"""A suppression lasts at least this much longer than the patience: otherwise the user could come back meanwhile."""

_CLOCK_MS: Final = 60_000
"""Clocks of the nodes of a cluster differ by less."""


class NotErasable(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """Nothing was erased, and nobody is suppressed. The message says why."""


@dataclass(slots=True)
class Left:
    """What is still stored of a user.

    Attributes:
        inbox_entries: entries of the inbox.
        waiting_entries: entries of the logs that were there when the erasure began, or are its own.
        pending_pairs: pairs that wait for the endpoint.
        parked_pairs: pairs that the endpoint refuses with an unknown code.
        late_marks: pairs that a request without an answer may still change.
        remembered_pairs: pairs in the ledgers.
        dead_letters: deletes that the endpoint refuses.
        busy_partitions: partitions that were not searched, because a worker holds them.
    """

    inbox_entries: int = 0
    waiting_entries: int = 0
    pending_pairs: int = 0
    parked_pairs: int = 0
    late_marks: int = 0
    remembered_pairs: int = 0
    dead_letters: int = 0
    busy_partitions: int = 0

    @property
    def nothing(self) -> bool:
        """Whether nothing is left, as far as was searched."""
        return not any(self.counts().values())

    def counts(self) -> dict[str, int]:
        """The number of each kind."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def add(self, other: Left) -> None:
        """Adds the numbers of another part."""
        for name, number in other.counts().items():
            setattr(self, name, getattr(self, name) + number)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure came to. All times are of Redis' clock (Unix ms).

    Attributes:
        hashed: the keyed hash of the user's id.
        begun_ms: when the user was suppressed first.
        ended_ms: when nothing was left, None if something is.
        until_ms: until when the user is suppressed.
        as_owner: pairs of which the user is the owner, and for which a delete was appended.
        as_contact: the same as contact.
        letters: dead letters that were removed.
        left: what is still stored.
        vouched_ms: pairs that were confirmed before this and not since may be forgotten; 0 if none can be.
    """

    hashed: bytes
    begun_ms: int
    ended_ms: int | None
    until_ms: int
    as_owner: int
    as_contact: int
    letters: int
    left: Left
    vouched_ms: int


class Eraser:
    """Erases one user from a namespace.

    Args:
        partitions: all of them; it takes their leases as a worker does.
        user: the user's id.
        monotonic: a clock, in seconds.
        sleep: how to wait.
        wait: how many replicas must have what it writes.
        inbox_map: how the inbox reads messages of change data capture; None if it does not.
        show: told how many partitions of how many were searched, and what is left in them.
    """

    def __init__(  # noqa: PLR0913 - what it depends on, by name
        self,
        partitions: Partitions,
        user: str,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        wait: Replicas = 0,
        inbox_map: InboxMap | None = None,
        show: Callable[[int, int, Left], None] = lambda _done, _of, _left: None,
    ) -> None:
        self._partitions = partitions
        self._namespace = partitions.namespace
        self._client, self._keys, self._count = self._namespace
        self._user, self._id = user, user.encode()
        self._monotonic = monotonic
        self._sleep = sleep
        self._wait = wait
        self._inbox_map = inbox_map
        self._show = show
        self._letters = DeadLetters(self._namespace, wait)
        self._hash = b""
        self._begun_ms = self._called_ms = 0
        self._said = 0
        self._retried: set[int] = set()
        self._renews = 0.0

    @property
    def suppressed(self) -> bool:
        """Whether it has suppressed the user."""
        return bool(self._hash)

    def erase(self, suppress_ms: int, patience_seconds: float, lease_patience_seconds: float) -> Erased:
        """Suppresses the user, and searches again and again until nothing is left, or the patience ends.

        Args:
            suppress_ms: for how long the user is suppressed from now on; at least until this has ended.
            patience_seconds: how long to wait. All partitions are searched once, however long that takes.
            lease_patience_seconds: how long to try to get the lease of a partition.

        Raises:
            NotErasable: nothing is known of the user, or older workers may take part.
            NotReplicatedError: too few replicas have what was written.
            redis.RedisError: Redis does not answer, or refuses. It goes on where it was when it is called again.
        """
        ends = self._monotonic() + patience_seconds
        self._begin(max(suppress_ms, int(patience_seconds * 1000) + _AT_LEAST_MS))
        while True:
            began = self._monotonic()
            left = self._search(lease_patience_seconds)
            now = self._monotonic()
            if left.nothing or now >= ends:
                break
            self._sleep(min(max(_SEARCH_SECONDS, now - began), _SEARCH_MAX_SECONDS, max(0.0, ends - now)))
        return self._end(left)

    def _begin(self, suppress_ms: int) -> None:
        form = recorded_form(self._namespace)
        if form is not None and form.one_pending:
            raise NotErasable(
                "workers of an older version may take part, and they would let the user come back: run contact-sync "
                "upgrade first"
            )
        known, now_ms = read_suppression(self._namespace), self._partitions.now_ms()
        if not known.holds(self._id, now_ms) and not self._traces().exist():
            raise NotErasable("nothing is stored about this user: nothing was erased, and nobody is suppressed")
        now_ms = self._partitions.now_ms()  # that took long, with many partitions: the user was not suppressed yet
        self._called_ms = now_ms
        self._hash = suppress(self._namespace, self._user, now_ms + suppress_ms, now_ms, self._wait)
        name = self._field("at")
        scripts.run_one(self._client, scripts.Call(scripts.RECORD, [self._keys.suppressed], [name, now_ms]))
        found: Any = self._client.hget(self._keys.suppressed, name.decode())
        self._begun_ms = int(found)

    def _end(self, left: Left) -> Erased:
        if left.nothing:
            call = scripts.Call(
                scripts.NOTE, [self._keys.suppressed], [self._field("ended"), self._partitions.now_ms()]
            )
            scripts.run_one(self._client, call, self._wait)
        names = ("at", "ended", "owner", "contact", "letters")
        found: Any = self._client.hmget(
            self._keys.suppressed, [self._hash.decode(), *(self._field(name).decode() for name in names)]
        )
        until_ms = decode_until(found[0])
        begun_ms, ended_ms, as_owner, as_contact, letters = (int(each or 0) for each in found[1:])
        return Erased(
            self._hash,
            begun_ms,
            ended_ms if left.nothing else None,
            until_ms,
            as_owner,
            as_contact,
            letters,
            left,
            self._vouched_ms(),
        )

    def _vouched_ms(self) -> int:
        """Since when all ledgers remember all that was confirmed; 0 if they always did."""
        asked = [("HMGET", self._keys.partition(p), "vouched", "rotated") for p in range(self._count)]
        found = all_checked(round_trip(self._client, asked))
        return max(int(vouched if vouched is not None else rotated or 0) for vouched, rotated in found)

    def _traces(self, before_page: Callable[[], None] = lambda: None) -> Traces:
        return Traces(self._namespace, self._id.__eq__, before_page, inbox_map=self._inbox_map)

    def _field(self, name: str) -> bytes:
        return self._hash + b":" + name.encode()

    def _count_up(self, **numbers: int) -> None:
        commands = [
            ("HINCRBY", self._keys.suppressed, self._field(name), number) for name, number in numbers.items() if number
        ]
        all_checked(round_trip(self._client, commands, self._wait))

    # Searching all partitions once

    def _search(self, lease_patience_seconds: float) -> Left:
        left, said = Left(inbox_entries=self._inbox()), self._said
        for p in range(self._count):
            self._show(p, self._count, left)
            lease = take_lease(self._partitions, p, lease_patience_seconds, self._monotonic, self._sleep)
            if lease is None:
                left.busy_partitions += 1
                continue
            try:
                left.add(self._search_partition(p, lease))
            except LeaseLost:
                left.busy_partitions += 1
            finally:
                self._partitions.release([lease])
        left.waiting_entries += self._said - said
        self._show(self._count, self._count, left)
        return left

    def _inbox(self) -> int:
        """Entries of the inbox that were there when it began; later ones are refused, or go by themselves."""
        return sum(1 for entry_id, _ in self._traces().inbox() if entry_time_ms(entry_id) <= self._begun_ms)

    def _search_partition(self, p: int, lease: Lease) -> Left:
        """Searches one partition, and appends the deletes that nobody has appended yet."""
        k, left = self._keys, Left()
        self._plan_renewal(lease)
        traces = self._traces(partial(self._renew, lease))
        if self._search_logs(p, traces, left):
            return left  # the deletes from before are not read yet
        for letters in traces.letters(p):
            left.dead_letters += self._search_letters(letters)
        for key in k.pending_classes(p):
            for page in traces.pairs(key):
                left.pending_pairs += len(page)
                self._say(p, [pair for pair, value in page if decode_state(value).delete is None])
        for page in traces.pairs(k.parked(p)):
            left.parked_pairs += len(page)
            parked = [(pair, decode_parked(value)) for pair, value in page]
            self._say(p, [pair for pair, each in parked if each.state.delete is None])
            if p not in self._retried:
                self._retry(lease, [(pair, each) for pair, each in parked if each.state.delete is not None])
        self._retried.add(p)
        for page in traces.pairs(k.late(p)):
            left.late_marks += len(page)  # a delete follows when the request can act no longer
        held = (*k.pending_classes(p), k.parked(p), k.dead_pairs(p))
        for key, before in ((k.ledger_new(p), held), (k.ledger_old(p), (*held, k.ledger_new(p)))):
            for page in traces.pairs(key):
                left.remembered_pairs += len(page)
                self._say(p, self._not_in(before, [pair for pair, _ in page]))
        return left

    def _search_logs(self, p: int, traces: Traces, left: Left) -> bool:
        """Appends deletes for what the logs hold; returns whether deletes from before are still in there.

        Entries that came later do not count: they are refused, or go by themselves, and nothing of them stays.
        """
        k, ours = self._keys, b"%d" % self._begun_ms

        def said(fields: dict[bytes, bytes]) -> bool:
            return fields.get(b"op") == b"delete" and fields.get(b"at") == ours

        # A log's node may have a clock that is behind.
        since = str(self._begun_ms - _CLOCK_MS)
        waits = sum(said(each) for page in traces.entries(k.events(p), since) for _, each in page)
        left.waiting_entries += waits
        for log in (k.events(p), k.bulk(p)):
            for page in traces.entries(log, last=str(self._begun_ms)):
                older = [each for _, each in page if not said(each)]
                left.waiting_entries += len(older)
                if not waits:
                    self._say_unknown(pair_of(each.get(b"owner", b""), each.get(b"contact", b"")) for each in older)
        return waits > 0

    def _retry(self, lease: Lease, parked: Iterable[tuple[bytes, Parked]]) -> None:
        """Lets workers try parked deletes now: once in each call, since only the caller knows what was mended since."""
        into, now_ms = Settlement(), self._partitions.clock_of(lease.partition)
        for pair, each in parked:
            into.park += (pair, encode_parked(each._replace(due_ms=now_ms)))
        if into.park:
            [end] = self._partitions.settle([lease], [into], [True])
            if end != "settled":
                raise LeaseLost
            self._plan_renewal(lease)

    def _search_letters(self, letters: Sequence[DeadLetter]) -> int:
        """Removes dead letters, and appends deletes for their pairs; returns how many the endpoint has refused since.

        What it refused before this call is appended again: a redrive would count it as outdated by what was confirmed.
        """
        refused = [
            each
            for each in letters
            if each.reason in OF_RECORDS and each.op == "delete" and each.since_ms >= self._called_ms
        ]
        older = [each for each in letters if each not in refused]
        self._say_unknown(pair_of((each.owner or "").encode(), (each.contact or "").encode()) for each in older)
        self._count_up(letters=self._letters.purge(older))
        return len(refused)

    def _say_unknown(self, pairs: Iterable[bytes]) -> None:
        """Appends deletes for those of these pairs of which nothing else is stored: for others a delete follows anyway.

        Entries and letters may lie in a partition other than their owner's.
        """
        homes: defaultdict[int, list[bytes]] = defaultdict(list)
        for pair in dict.fromkeys(pairs):
            homes[partition_of(split_pair(pair)[0], self._count)].append(pair)
        k = self._keys
        for p, several in homes.items():
            places = (*k.pending_classes(p), k.parked(p), k.ledger_new(p), k.ledger_old(p))
            self._say(p, self._not_in(places, several))

    def _renew(self, lease: Lease) -> None:
        if self._monotonic() >= self._renews:
            [end] = self._partitions.settle([lease], [Settlement()], [True])
            if end != "settled":
                raise LeaseLost
            self._plan_renewal(lease)

    def _plan_renewal(self, lease: Lease) -> None:
        self._renews = (self._monotonic() + lease.until) / 2

    def _not_in(self, places: Iterable[str], pairs: list[bytes]) -> list[bytes]:
        """Those of these pairs that none of these hashes has."""
        for key in places:
            if pairs:
                [found] = all_checked(round_trip(self._client, [("HMGET", key, *pairs)]))
                pairs = [pair for pair, value in zip(pairs, found, strict=True) if value is None]
        return pairs

    def _say(self, p: int, pairs: Iterable[bytes]) -> None:
        """Appends a delete for each pair; all carry the time at which the erasure began."""
        log, commands, as_owner = self._keys.events(p), [], 0
        for pair in pairs:
            owner, contact = split_pair(pair)
            if id_fault(owner) is None and id_fault(contact) is None:  # a malformed entry may name one of them alone
                said = ("owner", owner, "contact", contact, "op", "delete", "at", self._begun_ms)
                commands.append(("XADD", log, "*", *said))
                as_owner += owner == self._id
        if commands:
            all_checked(round_trip(self._client, commands, self._wait))
            self._said += len(commands)
            self._count_up(owner=as_owner, contact=len(commands) - as_owner)


class LeaseLost(Exception):  # noqa: N818 - the same
    """A partition's lease was lost while it was searched."""
