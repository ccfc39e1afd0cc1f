"""Erasure: what is kept about an owner, or about one of its pairs, found and removed under the partition's lease."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import partition_of
from producers.contract.errors import ContactSyncError
from worker.core.entry import pair_of, split_pair
from worker.core.settlement import Settlement
from worker.store import scripts
from worker.store.client import command
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.inbox import entries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from producers.contract.keys import Keys
    from worker.core.dead_letter import DeadLetter
    from worker.core.lease import Lease
    from worker.store.partitions import Partitions

_PAGE: Final = 1_000

_POLL_SECONDS: Final = 0.05
"""Between two tries to get a lease: workers give theirs back every second at least."""


class NotForgotten(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """Not everything was removed; it says why, and that it can be run again."""


@dataclass(slots=True)
class StoredData:
    """What is kept, by kind: ids of entries that wait, pairs in each place, dead letters."""

    inbox: list[bytes] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    pending: set[bytes] = field(default_factory=set)
    late: set[bytes] = field(default_factory=set)
    ledger: set[bytes] = field(default_factory=set)
    dead_pairs: set[bytes] = field(default_factory=set)
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether any of it is a promise: to deliver, or to repair what a late request does."""
        return bool(self.inbox or self.entries or self.pending or self.late)

    def counts(self) -> dict[str, int]:
        """How much there is of each kind."""
        return {
            "inbox_entries": len(self.inbox),
            "waiting_entries": len(self.entries),
            "pending_pairs": len(self.pending),
            "late_marks": len(self.late),
            "remembered_pairs": len(self.ledger),
            "dead_letters": len(self.letters),
        }


class Erasure:
    """Finds and removes what one namespace keeps about an owner, or a pair.

    Args:
        client: Redis.
        keys: the namespace's keys.
        partitions: all of them; their lease is taken as a worker takes it.
        owner: the owner's id.
        contact: the contact's id, None for all of the owner's pairs.
        monotonic: a clock, in seconds.
        sleep: how to wait.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it touches is handed in
        self,
        client: redis.Redis,
        keys: Keys,
        partitions: Partitions,
        owner: str,
        contact: str | None,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._partitions = partitions
        self._owner, self._contact = owner.encode(), None if contact is None else contact.encode()
        self._letters = DeadLetters(client, keys, partitions.count)
        self._wanted = Wanted(owner=owner, contact=contact)
        self._monotonic = monotonic
        self._sleep = sleep
        self.partition = partition_of(owner, partitions.count)

    def look(self, renew: Callable[[], None] = lambda: None) -> StoredData:
        """What is kept now.

        Args:
            renew: called before each step, to keep the lease.
        """
        k, p = self._keys, self.partition
        # The inbox first: what moves on meanwhile is seen in the log.
        kept = StoredData(inbox=[entry_id for entry_id, _ in entries_of(self._client, k, self._owner, self._contact)])
        for into, key in (
            (kept.pending, k.pending(p)),
            (kept.late, k.late(p)),
            (kept.ledger, k.ledger_old(p)),
            (kept.ledger, k.ledger_new(p)),
            (kept.dead_pairs, k.dead_pairs(p)),
        ):
            into.update(self._pairs(key, renew))
        kept.entries = list(self._entries(renew))
        kept.letters = list(self._letters.find(self._wanted))
        return kept

    def forget(self, *, also_waiting: bool, patience_seconds: float) -> StoredData:
        """Removes it; returns what was removed.

        Args:
            also_waiting: remove what waits too, so that it is never delivered.
            patience_seconds: how long to try for the partition's lease.

        Raises:
            NotForgotten: something waits, or the lease was not to be had, or was lost.
        """
        k, lease = self._keys, self._take(patience_seconds)

        def renew() -> None:
            if not lease.outlives(self._monotonic() + 5.0) and self._settle(lease, keep=True) != "settled":
                raise NotForgotten("the partition's lease was lost on the way: run it again")

        kept = self.look(renew)
        if kept.waits and not also_waiting:
            self._settle(lease, keep=False)
            raise NotForgotten(waiting_words(kept))
        self._letters.purge(kept.letters)
        for first in range(0, len(kept.inbox), _PAGE):
            command(self._client, "XDEL", k.inbox, *kept.inbox[first : first + _PAGE])
        pairs = sorted(kept.pending | kept.late | kept.ledger | kept.dead_pairs)
        for first in range(0, max(len(pairs), len(kept.entries)), _PAGE):
            renew()
            self._remove(lease, pairs[first : first + _PAGE], kept.entries[first : first + _PAGE])
        self._settle(lease, keep=False)
        return kept

    def _take(self, patience_seconds: float) -> Lease:
        ends = self._monotonic() + patience_seconds
        while True:
            for lease in self._partitions.claim([self.partition]):
                return lease
            if self._monotonic() >= ends:
                raise NotForgotten(
                    f"a worker holds partition {self.partition} all the time, or its keys are of strange types: "
                    "nothing was removed; try again"
                )
            self._sleep(_POLL_SECONDS)

    def _settle(self, lease: Lease, *, keep: bool) -> str:
        return self._partitions.settle([lease], [Settlement()], [keep])[0]

    def _remove(self, lease: Lease, pairs: list[bytes], entries: list[bytes]) -> None:
        k, p = self._keys, self.partition
        keys = [k.lease(p), k.events(p), k.pending(p), k.late(p), k.ledger_new(p), k.ledger_old(p)]
        call = scripts.Call(
            scripts.FORGET, [*keys, k.dead_pairs(p), k.totals(p)], [lease.token, len(pairs), *pairs, *entries]
        )
        reply = scripts.run(self._client, [call])[0]
        if isinstance(reply, Exception):
            raise reply
        if reply[0] != b"forgotten":
            raise NotForgotten("the partition's lease was lost on the way: run it again")

    # Looking

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

    def _entries(self, renew: Callable[[], None]) -> Iterator[bytes]:
        after: Any = b"-"
        while True:
            renew()
            page = command(self._client, "XRANGE", self._keys.events(self.partition), after, "+", "COUNT", _PAGE)
            for entry_id, flat in page:
                said = dict(zip(flat[::2], flat[1::2], strict=True))
                if said.get(b"owner") == self._owner and self._contact in {None, said.get(b"contact")}:
                    yield entry_id
            if len(page) < _PAGE:
                return
            after = b"(" + page[-1][0]


def waiting_words(kept: StoredData) -> str:
    """That something waits, and what can be done about it."""
    counts = kept.counts()
    entries = counts["inbox_entries"] + counts["waiting_entries"]
    return (
        f"{entries:,} entries, {counts['pending_pairs']:,} pairs and {counts['late_marks']:,} late "
        "marks of it wait, each a promise to deliver: contact-sync drain first, or say --also-waiting; "
        "nothing was removed"
    )
