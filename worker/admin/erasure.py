"""Finds and removes what is stored about an owner, or about one pair, while holding the partition's lease."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import partition_of
from producers.contract.errors import ContactSyncError
from worker.admin.leasing import take_lease
from worker.core.entry import pair_of, split_pair
from worker.core.numbers import many
from worker.core.settlement import Settlement
from worker.store import scripts
from worker.store.client import command, round_trip
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.inbox import entries_of
from worker.store.replies import all_checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from producers.nodes.trip import Replicas
    from worker.core.dead_letter import DeadLetter
    from worker.core.lease import Lease
    from worker.store.partitions import Partitions

_PAGE: Final = 1_000


class NotErased(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """Not everything was removed. The message says why; the command can be run again."""


@dataclass(slots=True)
class StoredData:
    """What is stored, by kind: ids of waiting entries, pairs in each place, dead letters."""

    inbox: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    bulk_entries: list[bytes] = field(default_factory=list)
    pending: set[bytes] = field(default_factory=set)
    parked: set[bytes] = field(default_factory=set)
    late: set[bytes] = field(default_factory=set)
    ledger: set[bytes] = field(default_factory=set)
    dead_pairs: set[bytes] = field(default_factory=set)
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        """Whether any of it must still be delivered, or repaired after a late request."""
        return bool(self.inbox or self.entries or self.bulk_entries or self.pending or self.parked or self.late)

    def counts(self) -> dict[str, int]:
        """The number of each kind."""
        return {
            "inbox_entries": len(self.inbox),
            "waiting_entries": len(self.entries) + len(self.bulk_entries),
            "pending_pairs": len(self.pending),
            "parked_pairs": len(self.parked),
            "late_marks": len(self.late),
            "remembered_pairs": len(self.ledger),
            "dead_letters": len(self.letters),
        }


class Erasure:
    """Finds and removes what one namespace stores about an owner, or about a pair.

    Args:
        partitions: all of them; it takes their lease as a worker does.
        owner: the owner's id.
        contact: the contact's id, None for all of the owner's pairs.
        monotonic: a clock, in seconds.
        sleep: how to wait.
        wait: how many replicas must have removed it too.
    """

    def __init__(  # noqa: PLR0913 - what it depends on; all but whom it concerns by name
        self,
        partitions: Partitions,
        owner: str,
        contact: str | None,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        wait: Replicas = 0,
    ) -> None:
        self._namespace = partitions.namespace
        self._client, self._keys = self._namespace.client, self._namespace.keys
        self._partitions = partitions
        self._owner, self._contact = owner.encode(), None if contact is None else contact.encode()
        self._wait = wait
        self._letters = DeadLetters(self._namespace, wait)
        self._wanted = Wanted(owner=owner, contact=contact)
        self._monotonic = monotonic
        self._sleep = sleep
        self.partition = partition_of(owner, self._namespace.partitions)

    def find(self, renew: Callable[[], None] = lambda: None) -> StoredData:
        """Returns what is stored now.

        Args:
            renew: called before each step, so that the lease does not expire.
        """
        k, p = self._keys, self.partition
        # The inbox first: an entry that moves into the log meanwhile is found there.
        stored = StoredData(inbox=[entry_id for entry_id, _ in entries_of(self._namespace, self._owner, self._contact)])
        for into, key in (
            *((stored.pending, key) for key in k.pending_classes(p)),
            (stored.parked, k.parked(p)),
            (stored.late, k.late(p)),
            (stored.ledger, k.ledger_old(p)),
            (stored.ledger, k.ledger_new(p)),
            (stored.dead_pairs, k.dead_pairs(p)),
        ):
            into.update(self._pairs(key, renew))
        stored.entries = list(self._entries(k.events(p), renew))
        stored.bulk_entries = list(self._entries(k.bulk(p), renew))
        stored.letters = list(self._letters.find(self._wanted))
        return stored

    def erase(self, *, also_waiting: bool, patience_seconds: float) -> StoredData:
        """Removes what is stored, and returns it.

        Args:
            also_waiting: also remove what is waiting, so that it is never delivered.
            patience_seconds: how long to try to get the partition's lease.

        Raises:
            NotReplicatedError: too few replicas have removed it.
            NotErased: something is waiting, or the lease could not be taken, or was lost.
        """
        k, lease = self._keys, self._take(patience_seconds)

        def renew() -> None:
            if not lease.outlives(self._monotonic() + 5.0) and self._settle(lease, keep=True) != "settled":
                raise NotErased("the partition's lease was lost before everything was removed: run it again")

        stored = self.find(renew)
        if stored.waiting and not also_waiting:
            self._partitions.release([lease])
            raise NotErased(waiting_words(stored))
        self._letters.purge(stored.letters)
        for first in range(0, len(stored.inbox), _PAGE):
            page_of_inbox = ("XDEL", k.inbox, *stored.inbox[first : first + _PAGE])
            all_checked(round_trip(self._client, [page_of_inbox], self._wait))
        pairs = sorted(stored.pending | stored.parked | stored.late | stored.ledger | stored.dead_pairs)
        # Once at least: what an earlier run removed may not have reached the replicas.
        for first in range(0, max(len(pairs), len(stored.entries), len(stored.bulk_entries), 1), _PAGE):
            renew()
            page = slice(first, first + _PAGE)
            self._remove(lease, pairs[page], stored.entries[page], stored.bulk_entries[page])
        self._settle(lease, keep=False)
        return stored

    def _take(self, patience_seconds: float) -> Lease:
        lease = take_lease(self._partitions, self.partition, patience_seconds, self._monotonic, self._sleep)
        if lease is None:
            raise NotErased(
                f"partition {self.partition} stays leased to a worker, or one of its keys has the wrong type: "
                "nothing was removed; try again"
            )
        return lease

    def _settle(self, lease: Lease, *, keep: bool) -> str:
        return self._partitions.settle([lease], [Settlement()], [keep])[0]

    def _remove(self, lease: Lease, pairs: list[bytes], entries: list[bytes], bulk: list[bytes]) -> None:
        k, p = self._keys, self.partition
        keys = [k.lease(p), k.events(p), k.bulk(p), k.late(p), k.ledger_new(p), k.ledger_old(p)]
        keys += [k.dead_pairs(p), k.totals(p), *k.pending_classes(p), k.parked(p)]
        args = [lease.token, len(pairs), len(entries), *pairs, *entries, *bulk]
        call = scripts.Call(scripts.FORGET, keys, args)
        if scripts.run_one(self._client, call, self._wait)[0] != b"forgotten":
            raise NotErased("the partition's lease was lost before everything was removed: run it again")

    # Finding

    def _pairs(self, key: str, renew: Callable[[], None]) -> Iterator[bytes]:
        if self._contact is not None:
            pair = pair_of(self._owner, self._contact)
            if self._client.hexists(key, pair):
                yield pair
            return
        cursor = -1
        while cursor:
            renew()
            reply: Any = self._client.hscan(key, max(cursor, 0), count=_PAGE)
            cursor, found = reply
            yield from (pair for pair in found if split_pair(pair)[0] == self._owner)

    def _entries(self, log: str, renew: Callable[[], None]) -> Iterator[bytes]:
        after: Any = b"-"
        while True:
            renew()
            page = command(self._client, "XRANGE", log, after, "+", "COUNT", _PAGE)
            for entry_id, flat in page:
                said = dict(zip(flat[::2], flat[1::2], strict=True))
                if said.get(b"owner") == self._owner and self._contact in {None, said.get(b"contact")}:
                    yield entry_id
            if len(page) < _PAGE:
                return
            after = b"(" + page[-1][0]


def waiting_words(stored: StoredData) -> str:
    """Says that something is waiting, and what to do about it."""
    counts = stored.counts()
    entries = many(counts["inbox_entries"] + counts["waiting_entries"], "entry")
    pairs, parked = many(counts["pending_pairs"], "pair"), many(counts["parked_pairs"], "parked pair")
    first = []
    if stored.inbox or stored.entries or stored.bulk_entries or stored.pending or stored.late:
        first.append("contact-sync drain")
    if stored.parked:  # which drain does not wait for
        first.append("contact-sync parked retry or bury with --owner")
    return (
        f"{entries}, {pairs}, {parked} and {many(counts['late_marks'], 'late mark')} are waiting and would never be "
        f"delivered: run {' and '.join(first)} first, or add --also-waiting; nothing was removed"
    )
