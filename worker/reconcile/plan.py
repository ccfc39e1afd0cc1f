"""The plan of a reconciliation: computed completely on disk, and refused if it would delete too much."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Self

from producers.contract.errors import ContactSyncError
from worker.core.codec import decode_remembered
from worker.core.numbers import many
from worker.core.pair import join_remembered
from worker.reconcile.aside import file_aside
from worker.reconcile.difference import difference
from worker.reconcile.rows import Reject
from worker.reconcile.spill import BUCKETS, PART, Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from producers.contract.change import Op
    from worker.core.pair import Remembered
    from worker.reconcile.rows import Row
    from worker.reconcile.spill import Tagged

_WAITS, _DEAD = b"w", b"d"

ALWAYS_ALLOWED: Final = 100
"""Number of deletes that is always allowed, whatever their share, unless the user sets a share."""


class TooManyDeletes(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The reconciliation would delete more than is allowed; nothing was sent."""


class Limits(NamedTuple):
    """The limits of deletes.

    Attributes:
        most: most deletes.
        share: most deletes in percent of the known contacts, or of the rows if no contact is known.
        floor: number of deletes that is allowed whatever their share.
    """

    most: int = 100_000
    share: float = 10.0
    floor: int = ALWAYS_ALLOWED

    def check(self, deletes: int, upserts: int, of: int) -> None:
        """Checks the number of deletes.

        Args:
            deletes: deletes in the plan.
            upserts: upserts in the plan.
            of: number of contacts of which the share is computed.

        Raises:
            TooManyDeletes: there are too many; the message says what would have been sent.
        """
        part = 100 * deletes / of if of else 100.0
        would = f"it would send {many(deletes, 'delete')} ({part:.1f} % of {of:,}) and {many(upserts, 'upsert')}"
        if deletes > self.most:
            raise TooManyDeletes(f"refused, nothing was sent: {would}; --max-deletes allows {self.most:,}")
        if deletes > self.floor and part > self.share:
            raise TooManyDeletes(f"refused, nothing was sent: {would}; --max-delete-share allows {self.share:g} %")


class Plan:
    """Reads a whole source, computes the changes to send, and stores them on disk; a context manager.

    Args:
        on_reject: called with each rejected row, and with each pair that occurs twice.

    Raises:
        NoRoomError: the temporary directory cannot be written.
    """

    def __init__(self, on_reject: Callable[[Reject], None]) -> None:
        self._on_reject = on_reject
        self._open = ExitStack()
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._source, self._known, self._waiting = (self._open.enter_context(Spill()) for _ in range(3))
        self._sent: dict[Op, IO[bytes]] = {
            "upsert": self._open.enter_context(file_aside()),
            "delete": self._open.enter_context(file_aside()),
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def digest(self) -> int:
        """Checksum of the source's content, independent of its order."""
        return self._source.digest

    def read(self, rows: Iterable[Row | Reject], owner: bytes | None) -> None:
        """Reads the source to its end.

        Args:
            rows: rows and rejects of the source.
            owner: the one owner whose rows count; None for all.

        Raises:
            SourceBroken: the source cannot be read to its end.
        """
        head = None if owner is None else owner + b"\x1f"
        for row in rows:
            if isinstance(row, Reject):
                self.counts["rejects"] += 1
                self._on_reject(row)
            elif head is None or row.pair.startswith(head):
                self.counts["rows"] += 1
                self._source.add(b"%b%d" % (row.op[:1].encode(), row.line), row.pair)

    def add_dead(self, dead: Iterable[bytes]) -> None:
        """Adds the pairs with dead letters."""
        for pair in dead:
            self._waiting.add(_DEAD, pair)

    def add_known(self, known: Iterable[tuple[bytes, bytes]], waiting: Iterable[bytes], owner: bytes | None) -> None:
        """Adds the ledger's entries and the waiting pairs, of one owner or of all."""
        head = b"" if owner is None else owner + b"\x1f"
        # What waits goes into the ledger: read in this order, a pair is seen twice meanwhile, but never missed.
        for pair in waiting:
            if pair.startswith(head):
                self._waiting.add(_WAITS, pair)
        for pair, value in known:
            if pair.startswith(head):
                self._known.add(value, pair)

    def compute(self, as_of_ms: int, *, despite_rejects: bool = False) -> None:
        """Computes the changes to send, bucket by bucket."""
        whole = despite_rejects or not self.counts["rejects"]
        spills = (self._source, self._known, self._waiting)
        for number in range(BUCKETS):
            parts = 1 + max(spill.size(number) for spill in spills) // PART
            with ExitStack() as undo:
                several = [undo.enter_context(spill.split(number, parts)) for spill in spills]
                for said, known, others in zip(*several, strict=True):
                    self._compute_part(self._ops_of(said), known, others, as_of_ms, whole=whole)
        for file in self._sent.values():
            file.flush()  # a full disk is found out before anything is sent

    def _compute_part(
        self, said: dict[bytes, Op], remembered: Tagged, others: Tagged, as_of_ms: int, *, whole: bool
    ) -> None:
        known: dict[bytes, Remembered] = {}
        for tag, pair in remembered:
            found = join_remembered(decode_remembered(tag), known.get(pair))
            known[pair] = found or decode_remembered(tag)
        places: dict[bytes, set[bytes]] = {_WAITS: set(), _DEAD: set()}
        for tag, pair in others:
            places[tag].add(pair)
        self.counts["known"] += sum(each.op == "upsert" for each in known.values())
        for what, pair in difference(said, known, places[_WAITS], as_of_ms, whole=whole, dead=places[_DEAD]):
            self.counts[what] += 1
            if what == "upsert" or what == "delete":  # noqa: PLR1714 - narrows the type
                self._sent[what].write(pair + b"\n")

    def _ops_of(self, entries: Tagged) -> dict[bytes, Op]:
        """Returns the op of each pair in the source. If a pair occurs twice, a delete wins."""
        said: dict[bytes, Op] = {}
        for tag, pair in entries:
            op: Op = "delete" if tag[:1] == b"d" else "upsert"
            before = said.get(pair)
            if before is not None:
                self.counts["duplicates"] += 1
                rule = "must not occur twice" if before == op else "must not have both ops: the delete counts"
                self._on_reject(Reject(int(tag[1:]), "contact", rule, pair.decode().replace("\x1f", " ")))
            said[pair] = "delete" if "delete" in {op, before} else "upsert"
        return said

    def changes(self) -> Iterator[tuple[Op, str, str]]:
        """Yields the changes to send as (op, owner, contact): all upserts, then all deletes."""
        ops: tuple[Op, ...] = ("upsert", "delete")
        for op in ops:
            self._sent[op].seek(0)
            for line in self._sent[op]:
                owner, _, contact = line[:-1].decode().partition("\x1f")
                yield op, owner, contact
