"""Finds dead letters, marks those that newer outcomes outdate, redrives and purges them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from producers.contract.change import partition_of
from worker.core.codec import decode_dead_pair, decode_remembered
from worker.core.dead_letter import DeadLetter, RedrivableChange, read_letter
from worker.core.pair import join_remembered
from worker.core.reasons import OF_RECORDS
from worker.store import scripts
from worker.store.client import round_trip
from worker.store.replies import all_checked, checked, is_wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from producers.nodes.trip import Replicas
    from worker.core.pair import Remembered
    from worker.store.namespace import Namespace

Redriven = Literal["redriven", "outdated", "forgotten", "malformed", "gone"]
"""Result of a redrive. All but `redriven` leave the letter in place."""

_PAGE: Final = 500  # letters read, judged or moved in one round trip

_Item = TypeVar("_Item")


class Selectable(Protocol):
    """What can be selected by these filters."""

    @property
    def owner(self) -> str | None:
        """The owner's id."""

    @property
    def contact(self) -> str | None:
        """The contact's id."""

    @property
    def reason(self) -> str | None:
        """Why it is there."""

    @property
    def since_ms(self) -> int:
        """Since when (Unix ms)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Selects letters: those with these ids, or all if there are none; of these, the ones that match every filter.

    Attributes:
        ids: each a partition and a number, as in `17-3`.
        owner: the owner's id.
        contact: the contact's id.
        reason: why they are dead letters.
        before_ms: they became dead letters before this moment (Unix ms).
    """

    ids: tuple[str, ...] = ()
    owner: str | None = None
    contact: str | None = None
    reason: str | None = None
    before_ms: int | None = None

    def fits(self, letter: Selectable) -> bool:
        """Whether the letter, or the parked pair, matches every filter."""
        return (
            self.owner in {None, letter.owner}
            and self.contact in {None, letter.contact}
            and self.reason in {None, letter.reason}
            and (self.before_ms is None or letter.since_ms < self.before_ms)
        )


class DeadLetters:
    """The dead letters of one namespace.

    Args:
        namespace: where they are stored.
        wait: how many replicas must have what is redriven or purged.
    """

    def __init__(self, namespace: Namespace, wait: Replicas = 0) -> None:
        self._client, self._keys, self._partitions = namespace
        self._wait = wait

    def find(self, wanted: Wanted) -> Iterator[DeadLetter]:
        """Finds the wanted letters, by partition, the oldest first.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        for page in _pages(letter for letter in self._read(wanted) if wanted.fits(letter)):
            yield from self._judged(page)

    def redrive(self, letters: Sequence[DeadLetter]) -> list[Redriven]:
        """Puts letters back into the log, in their order; a letter that a newer outcome outdates stays.

        A change keeps its `at`; one without gets the time of its entry. A letter in the wrong partition goes to its
        owner's: it is appended there first and removed here afterwards. A crash in between doubles the change, which
        is harmless because it has an `at`, and loses nothing. A message that did not fit the inbox's mapping goes back
        into the inbox in the same way.

        Args:
            letters: as they were found.

        Raises:
            redis.RedisError: Redis does not answer, or refuses; it is not certain which letters were redriven.
        """
        return [each for page in _pages(letters) for each in self._redrive_page(page)]

    def purge(self, letters: Iterable[DeadLetter]) -> int:
        """Removes letters for good; returns how many were still there.

        Args:
            letters: as they were found.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return sum(self._purge_page(page) for page in _pages(letters))

    # Reading

    def _read(self, wanted: Wanted) -> Iterator[DeadLetter]:
        if wanted.ids:
            yield from self._read_ids(wanted.ids)
            return
        for p in self._with_letters():
            values = dict(self._client.hscan_iter(self._keys.dead(p), count=_PAGE))
            for letter_id in sorted(values, key=_number):
                yield read_letter(p, letter_id, values[letter_id])

    def _read_ids(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        pipe = self._client.pipeline(transaction=False)
        for letter_id in ids:
            pipe.hget(self._keys.dead(int(letter_id.partition("-")[0])), letter_id)
        for letter_id, value in zip(ids, pipe.execute(), strict=True):
            if value is not None:
                yield read_letter(int(letter_id.partition("-")[0]), letter_id.encode(), value)

    def _with_letters(self) -> list[int]:
        pipe = self._client.pipeline(transaction=False)
        for p in range(self._partitions):
            pipe.hlen(self._keys.dead(p))
        counts = pipe.execute(raise_on_error=False)
        # A key of the wrong type hides the letters of one partition; `status` and `check` report it.
        return [p for p, count in enumerate(counts) if not is_wrong_type(count) and checked(count)]

    def _judged(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Marks the letters whose pair had something newer confirmed since."""
        pipe = self._client.pipeline(transaction=False)
        changes = [letter.redrivable for letter in letters]
        for each in changes:
            if each is not None:
                home = self._home(each)
                pipe.hget(self._keys.dead_pairs(home), each.pair)
                pipe.hget(self._keys.ledger_new(home), each.pair)
                pipe.hget(self._keys.ledger_old(home), each.pair)
        replies = iter(pipe.execute())
        return [
            letter
            if each is None
            else replace(letter, outdated=each.outdated_by(_known(next(replies), next(replies), next(replies))))
            for letter, each in zip(letters, changes, strict=True)
        ]

    def _home(self, change: RedrivableChange) -> int:
        return partition_of(change.owner, self._partitions)

    # Moving

    def _redrive_page(self, page: Sequence[DeadLetter]) -> list[Redriven]:
        changes = [(letter, letter.redrivable) for letter in page]
        calls = [self._redrive_call(letter, each) for letter, each in changes if each is not None]
        replies = iter(all_checked(scripts.run(self._client, calls, self._wait)))
        ends: list[Redriven] = ["malformed" if each is None else next(replies)[0].decode() for _, each in changes]
        messages = [i for i, letter in enumerate(page) if letter.reason == "unmapped" and letter.said]
        for i, end in zip(messages, self._redrive_messages([page[i] for i in messages]), strict=True):
            ends[i] = end
        moved = [
            letter
            for (letter, each), end in zip(changes, ends, strict=True)
            if each is not None and end == "redriven" and self._home(each) != letter.partition
        ]
        self.purge(moved)  # the changes are on the replicas of their own node by now
        return ends

    def _redrive_messages(self, letters: Sequence[DeadLetter]) -> list[Redriven]:
        """Puts messages back into the inbox, where the corrected mapping reads them.

        Whose pair they are is not known here, so the memory of all partitions must reach back as far.
        """
        if not letters:
            return []
        asked = [("HMGET", self._keys.partition(p), "vouched", "rotated") for p in range(self._partitions)]
        since = all_checked(round_trip(self._client, asked))
        forgotten_ms = max(int(vouched or rotated or 0) for vouched, rotated in since)
        ends: list[Redriven] = ["redriven" if (each.entry_ms or 0) > forgotten_ms else "forgotten" for each in letters]
        redriven = [letter for letter, end in zip(letters, ends, strict=True) if end == "redriven"]
        appends = [("XADD", self._keys.inbox, "*", *(letter.said or ())) for letter in redriven]
        all_checked(round_trip(self._client, appends, self._wait))
        self.purge(redriven)
        return ends

    def _redrive_call(self, letter: DeadLetter, change: RedrivableChange) -> scripts.Call:
        k, p = self._keys, self._home(change)
        log = k.bulk(p) if letter.lane == "bulk" else k.events(p)
        keys = [k.dead(p), k.dead_pairs(p), log, k.ledger_new(p), k.ledger_old(p), k.partition(p)]
        # While a pair has refused letters all that is confirmed of it is kept; for the others the ledger must do.
        reach_ms = 0 if letter.reason in OF_RECORDS else letter.entry_ms or 0
        letter_id = letter.id if p == letter.partition else ""
        fields: list[Any] = ["owner", change.owner, "contact", change.contact, "op", change.op, "at", change.at]
        fields += ["source", change.source] if change.source else []
        return scripts.Call(scripts.REDRIVE, keys, [letter_id, change.pair, change.op, change.at, reach_ms, *fields])

    def _purge_page(self, page: Sequence[DeadLetter]) -> int:
        by_partition: dict[int, list[str | bytes]] = {}
        for letter in page:
            by_partition.setdefault(letter.partition, []).extend((letter.id, letter.counted_pair))
        calls = [
            scripts.Call(scripts.PURGE, [self._keys.dead(p), self._keys.dead_pairs(p)], args)
            for p, args in by_partition.items()
        ]
        return sum(all_checked(scripts.run(self._client, calls, self._wait)))


def _pages(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    rest = iter(items)
    while page := list(islice(rest, _PAGE)):
        yield page


def _number(letter_id: bytes) -> int:
    return int(letter_id.rpartition(b"-")[2])


def _known(dead_pair: bytes | None, new: bytes | None, old: bytes | None) -> Remembered | None:
    ledger = join_remembered(
        decode_remembered(new) if new is not None else None, decode_remembered(old) if old is not None else None
    )
    return join_remembered(ledger, decode_dead_pair(dead_pair).confirmed if dead_pair is not None else None)
