"""Finds what a namespace keeps of a user, as owner and as contact, page by page: memory stays that of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from worker.core.dead_letter import read_letter, values_of
from worker.core.entry import UNMAPPED, split_pair
from worker.store.client import command
from worker.store.inbox import every_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from worker.core.dead_letter import DeadLetter
    from worker.core.inbox_map import InboxMap
    from worker.store.namespace import Namespace

PAGE: Final = 1_000
"""Entries or pairs that are looked at in one round trip."""

Entry = tuple[bytes, dict[bytes, bytes]]
"""An entry of a log: its id, and its fields."""


class Traces:
    """What a namespace keeps of whoever matches.

    Args:
        namespace: where it is stored.
        matches: whether an id is the one that is looked for.
        before_page: called before each page, so that a lease does not expire.
        inbox_map: how the inbox reads messages of change data capture; None if it does not.
    """

    def __init__(
        self,
        namespace: Namespace,
        matches: Callable[[bytes], bool],
        before_page: Callable[[], None] = lambda: None,
        *,
        inbox_map: InboxMap | None = None,
    ) -> None:
        self._namespace = namespace
        self._client = namespace.client
        self._matches = matches
        self._before_page = before_page
        self._inbox_map = inbox_map

    def exist(self) -> bool:
        """Whether anything is kept. What moves meanwhile is looked for where it goes after where it was.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        keys, partitions = self._namespace.keys, range(self._namespace.partitions)
        return any(self.inbox()) or any(
            any(pages)
            for p in partitions
            for pages in (
                self.entries(keys.events(p)),
                self.entries(keys.bulk(p)),
                *(self.pairs(key) for key in (*keys.pending_classes(p), keys.parked(p), keys.late(p))),
                *(self.pairs(key) for key in (keys.ledger_new(p), keys.ledger_old(p), keys.dead_pairs(p))),
                self.letters(p),
            )
        )

    def inbox(self) -> Iterator[Entry]:
        """The inbox's entries, as they will be in the log."""
        for entry_id, fields in every_entry(self._namespace, self._inbox_map):
            said = dict(zip(fields[::2], fields[1::2], strict=True))
            if self._said(said):
                yield entry_id, said

    def entries(self, log: str, first: Any = b"-", last: Any = b"+") -> Iterator[list[Entry]]:
        """A log's entries from one id to another; pages without any are left out."""
        after = first
        while True:
            self._before_page()
            page = command(self._client, "XRANGE", log, after, last, "COUNT", PAGE)
            every = ((entry_id, dict(zip(flat[::2], flat[1::2], strict=True))) for entry_id, flat in page)
            if found := [each for each in every if self._said(each[1])]:
                yield found
            if len(page) < PAGE:
                return
            after = b"(" + page[-1][0]

    def pairs(self, key: str) -> Iterator[list[tuple[bytes, bytes]]]:
        """A hash's pairs with what is stored of each; pages without any are left out."""
        cursor = -1
        while cursor:
            self._before_page()
            reply: Any = self._client.hscan(key, max(cursor, 0), count=PAGE)
            cursor, page = reply
            if found := [(pair, value) for pair, value in page.items() if any(map(self._matches, split_pair(pair)))]:
                yield found

    def letters(self, partition: int) -> Iterator[list[DeadLetter]]:
        """A partition's dead letters; pages without any are left out."""
        cursor = -1
        while cursor:
            self._before_page()
            reply: Any = self._client.hscan(self._namespace.keys.dead(partition), max(cursor, 0), count=PAGE)
            cursor, page = reply
            every = (read_letter(partition, letter_id, value) for letter_id, value in page.items())
            if found := [letter for letter in every if self._matches_any(letter.ids)]:
                yield found

    def _matches_any(self, ids: Iterable[str]) -> bool:
        return any(self._matches(each.encode()) for each in ids)

    def _said(self, fields: dict[bytes, bytes]) -> bool:
        if UNMAPPED in fields:  # soon a dead letter, which holds a message of the inbox
            return self._matches_any(values_of([fields[UNMAPPED].decode("utf-8", "replace")]))
        return any(name in fields and self._matches(fields[name]) for name in (b"owner", b"contact"))
