"""What a reconciliation is going to send: reckoned whole, on disk, and refused if it would delete too much."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Self

from producers.contract.errors import ContactSyncError
from worker.core.codec import decode_remembered
from worker.core.pair import join_remembered
from worker.reconcile.difference import difference
from worker.reconcile.rows import Reject
from worker.reconcile.spill import BUCKETS, PART, Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from producers.contract.change import Op
    from worker.core.pair import Remembered
    from worker.reconcile.rows import Row
    from worker.reconcile.spill import Words

_WAITS, _DEAD = b"w", b"d"

ALWAYS_ALLOWED: Final = 100
"""So many deletes are allowed whatever share of the whole they are, unless a share was asked for."""


class TooManyDeletes(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """A snapshot would delete more than is allowed: nothing was sent."""


class Limits(NamedTuple):
    """The safety stop.

    Attributes:
        most: most deletes.
        share: most deletes in percent of the contacts that are known, or where none is of the rows.
        floor: so many deletes are allowed whatever their share.
    """

    most: int = 100_000
    share: float = 10.0
    floor: int = ALWAYS_ALLOWED

    def check(self, deletes: int, upserts: int, of: int) -> None:
        """Raises TooManyDeletes where there are too many, saying what would have been done."""
        part = 100 * deletes / of if of else 100.0
        would = f"it would send {deletes:,} deletes ({part:.1f} % of {of:,}) and {upserts:,} upserts"
        if deletes > self.most:
            raise TooManyDeletes(f"refused, nothing was sent: {would}; --max-deletes allows {self.most:,}")
        if deletes > self.floor and part > self.share:
            raise TooManyDeletes(f"refused, nothing was sent: {would}; --max-delete-share allows {self.share:g} %")


class Plan:
    """Reads a source whole, reckons what follows from it, and keeps that on disk; a context manager.

    Args:
        on_reject: told of each row that is none, and of each pair that stands twice.
    """

    def __init__(self, on_reject: Callable[[Reject], None]) -> None:
        self._on_reject = on_reject
        self._open = ExitStack()
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._said, self._known, self._waiting = (self._open.enter_context(Spill()) for _ in range(3))
        self._sent: dict[Op, IO[bytes]] = {
            "upsert": self._open.enter_context(tempfile.TemporaryFile()),
            "delete": self._open.enter_context(tempfile.TemporaryFile()),
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def digest(self) -> int:
        """Of what the source said, in whatever order."""
        return self._said.digest

    def read(self, rows: Iterable[Row | Reject], owner: bytes | None) -> None:
        """Reads the source to its end.

        Raises:
            SourceBroken: it has none.
        """
        head = None if owner is None else owner + b"\x1f"
        for row in rows:
            if isinstance(row, Reject):
                self.counts["rejects"] += 1
                self._on_reject(row)
            elif head is None or row.pair.startswith(head):
                self.counts["rows"] += 1
                self._said.add(b"%b%d" % (row.op[:1].encode(), row.line), row.pair)

    def dead_letter(self, dead: Iterable[bytes]) -> None:
        """Takes in which pairs have dead letters."""
        for pair in dead:
            self._waiting.add(_DEAD, pair)

    def learn(self, known: Iterable[tuple[bytes, bytes]], waiting: Iterable[bytes], owner: bytes | None) -> None:
        """Takes in what is known of the endpoint, of one owner or of all."""
        head = b"" if owner is None else owner + b"\x1f"
        for pair, value in known:
            if pair.startswith(head):
                self._known.add(value, pair)
        for pair in waiting:
            if pair.startswith(head):
                self._waiting.add(_WAITS, pair)

    def compute(self, as_of_ms: int, *, despite_rejects: bool = False) -> None:
        """Works out what is to be sent, bucket by bucket."""
        whole = despite_rejects or not self.counts["rejects"]
        spills = (self._said, self._known, self._waiting)
        for number in range(BUCKETS):
            parts = 1 + max(spill.size(number) for spill in spills) // PART
            with ExitStack() as undo:
                several = [undo.enter_context(spill.split(number, parts)) for spill in spills]
                for said, known, others in zip(*several, strict=True):
                    self._reckon_part(self._said_once(said), known, others, as_of_ms, whole=whole)

    def _reckon_part(
        self, said: dict[bytes, Op], remembered: Words, others: Words, as_of_ms: int, *, whole: bool
    ) -> None:
        known: dict[bytes, Remembered] = {}
        for word, pair in remembered:
            found = join_remembered(decode_remembered(word), known.get(pair))
            known[pair] = found or decode_remembered(word)
        places: dict[bytes, set[bytes]] = {_WAITS: set(), _DEAD: set()}
        for word, pair in others:
            places[word].add(pair)
        self.counts["known"] += sum(each.op == "upsert" for each in known.values())
        for what, pair in difference(said, known, places[_WAITS], as_of_ms, whole=whole, dead=places[_DEAD]):
            self.counts[what] += 1
            if what == "upsert" or what == "delete":  # noqa: PLR1714 - narrows the type
                self._sent[what].write(pair + b"\n")

    def _said_once(self, words: Words) -> dict[bytes, Op]:
        """What the source says, a pair once: where it stands twice a delete counts, as everywhere."""
        said: dict[bytes, Op] = {}
        for word, pair in words:
            op: Op = "delete" if word[:1] == b"d" else "upsert"
            before = said.get(pair)
            if before is not None:
                self.counts["duplicates"] += 1
                rule = "must not stand twice" if before == op else "must not say both: the delete counts"
                self._on_reject(Reject(int(word[1:]), "contact", rule, pair.decode().replace("\x1f", " ")))
            said[pair] = "delete" if "delete" in {op, before} else "upsert"
        return said

    def changes(self) -> Iterator[tuple[Op, str, str]]:
        """What is to be sent: all upserts, then all deletes; op, owner, contact."""
        ops: tuple[Op, ...] = ("upsert", "delete")
        for op in ops:
            self._sent[op].seek(0)
            for line in self._sent[op]:
                owner, _, contact = line[:-1].decode().partition("\x1f")
                yield op, owner, contact
