"""A bounded SQLite file that keeps changes while Redis is unavailable, full or read-only. Safe against kill -9.

Once `append` returns, the changes are on the disk. Several processes may share one file: each sees at once what the
others spooled, and one at a time forwards. The file must be on a disk of this machine, because SQLite's locks do not
work over networks.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from producers.contract.change import ContactChange
from producers.contract.errors import InvalidChange, SettingsError, SpoolError
from producers.spool.file import DAMAGED, busy, create, hold_reserve, open_spool, release_reserve, said

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SPOOL_BYTES: Final = 64 * 1024 * 1024
"""Default limit of the file."""
SPOOL_MIN_BYTES: Final = 64 * 1024
"""Smallest limit: below it SQLite's own pages leave little room for changes."""

_FIELDS: Final = ("owner", "contact", "op", "at", "source", "traceparent", "lane")
_APPEND: Final = "INSERT INTO changes (owner, contact, op, at, source, traceparent, lane) VALUES (?, ?, ?, ?, ?, ?, ?)"
_AFTER: Final = (
    "SELECT seq, owner, contact, op, at, source, traceparent, lane FROM changes WHERE seq > ? ORDER BY seq LIMIT ?"
)

_ASKED_AT_ONCE: Final = 500  # owners: an SQLite of before 2020 takes 999 in one statement

# A connection inherited through a fork must be neither used nor closed, so it is kept from garbage collection.
_inherited: list[sqlite3.Connection] = []

_SQLITE: Final = threading.RLock()
"""Held by the thread that is inside SQLite. A fork waits for it: SQLite has locks of its own, which a child would find
held forever if another thread was inside SQLite at that moment."""
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_SQLITE.acquire, after_in_parent=_SQLITE.release, after_in_child=_SQLITE.release)


class Spooled(NamedTuple):
    """A change in the spool.

    Attributes:
        seq: its number; changes are forwarded in this order.
        change: the change as it was first stamped.
    """

    seq: int
    change: ContactChange


class Spool:
    """The file. Safe to share between threads, processes and both sides of a fork.

    Args:
        path: where it is, or will be created; its directory must exist.
        namespace: of the log that the changes are for; a spool belongs to one namespace.
        max_bytes: largest size of the file. Its write-ahead log takes a few more megabytes.

    Raises:
        SettingsError: the file cannot be opened, is not a spool, or holds changes of another namespace.
    """

    def __init__(self, path: str | os.PathLike[str], namespace: str, max_bytes: int = SPOOL_BYTES) -> None:
        if max_bytes < SPOOL_MIN_BYTES:
            raise SettingsError(f"spool_bytes must be {SPOOL_MIN_BYTES} or more, not {max_bytes}")
        self.path: Final = Path(os.path.realpath(path))  # SQLite's own files lie beside it, not beside a link
        self._namespace = namespace
        self._max_bytes = max_bytes
        self._pid = os.getpid()
        with _SQLITE:
            self._connection: sqlite3.Connection | None = open_spool(self.path, namespace, max_bytes)

    def append(self, changes: Iterable[ContactChange]) -> None:
        """Appends stamped changes, all or none; when this returns they are on the disk.

        Raises:
            SpoolError: it failed, and none of them is in the spool.
        """
        rows = [tuple(getattr(change, field) for field in _FIELDS) for change in changes]
        with suppress(OSError):  # without room for it, changes are still better kept than refused
            hold_reserve(self.path, self._max_bytes)  # each time: another process may have used it
        with self._transaction() as connection:
            connection.executemany(_APPEND, rows)

    def remove(self, seqs: Iterable[int]) -> None:
        """Removes changes that are in the log. If the disk is full, it frees the reserve for that.

        Raises:
            SpoolError: it failed, and all of them are still there.
        """
        gone = [(seq,) for seq in seqs]
        try:
            self._remove(gone)
        except SpoolError as error:
            if not (error.full and release_reserve(self.path)):
                raise
            self._remove(gone)

    def after(self, seq: int, limit: int) -> list[Spooled]:
        """Returns the oldest changes after a number, in order.

        Raises:
            SpoolError: the file cannot be read.
        """
        changes: list[Spooled] = []
        while not changes:
            with self._connected() as connection:
                rows = connection.execute(_AFTER, (seq, limit)).fetchall()
            if not rows:
                break
            invalid = []
            for number, *values in rows:
                try:
                    changes.append(Spooled(number, ContactChange(**dict(zip(_FIELDS, values, strict=True)))))
                except (InvalidChange, TypeError):
                    invalid.append((number,))
            if invalid:
                self._set_aside(invalid)
            seq = rows[-1][0]
        return changes

    def holds_any(self) -> bool:
        """Returns whether any change waits, of any process.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._connected() as connection:
            return connection.execute("SELECT 1 FROM changes LIMIT 1").fetchone() is not None

    def owners_among(self, owners: Iterable[str]) -> set[str]:
        """Returns which of these owners have a change that waits, of any process.

        Raises:
            SpoolError: the file cannot be read.
        """
        if not self.holds_any():
            return set()
        asked = list(dict.fromkeys(owners))
        found: set[str] = set()
        with self._connected() as connection:
            for i in range(0, len(asked), _ASKED_AT_ONCE):
                some = asked[i : i + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT DISTINCT owner FROM changes WHERE owner IN ({marks})", some)  # noqa: S608 - only question marks
                found.update(owner for (owner,) in rows)
        return found

    def __len__(self) -> int:
        """Returns how many changes wait."""
        with self._connected() as connection:
            return int(connection.execute("SELECT count(*) FROM changes").fetchone()[0])

    def __bool__(self) -> bool:
        """Returns True even if no change waits."""
        return True

    def set_aside(self) -> int:
        """Returns how many rows no producer can have written: they are kept in the table ``invalid``, and not sent.

        Raises:
            SpoolError: the file cannot be read.
        """
        with self._connected() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'invalid'").fetchone():
                return 0
            return int(connection.execute("SELECT count(*) FROM invalid").fetchone()[0])

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Holds the right to forward, which only one holder has among all processes; False if another holds it.

        It is SQLite's lock on a second file: the operating system releases it when the process ends, however it ends.

        Raises:
            SpoolError: that file cannot be created or locked.
        """
        path = self.path.with_name(f"{self.path.name}-forward")
        try:
            with _SQLITE:
                create(path)
                lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"the spool {self.path} cannot be forwarded: {error}") from error
        try:
            yield self._locked(lock)
        finally:
            with _SQLITE:
                lock.close()

    def close(self) -> None:
        """Closes the file; its changes stay. The next use opens it again."""
        with _SQLITE:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
                self._connection = None

    def _locked(self, lock: sqlite3.Connection) -> bool:
        try:
            with _SQLITE:
                lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            if busy(error):
                return False
            if release_reserve(self.path):  # a full disk refuses even the lock
                return self._locked(lock)
            raise SpoolError(f"the spool {self.path} cannot be forwarded: {error}") from error
        return True

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            self._begin_after_fork()
        with _SQLITE:
            try:
                if self._connection is None:
                    self._connection = open_spool(self.path, self._namespace, self._max_bytes)
                yield self._connection
            except DAMAGED as error:
                full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
                words = f"is full ({self._max_bytes} bytes, or its disk)" if full else f"failed: {said(error)}"
                raise SpoolError(f"the spool {self.path} {words}", full=full) from error
            except SettingsError as error:
                raise SpoolError(str(error)) from error

    def _remove(self, seqs: list[tuple[int]]) -> None:
        with self._transaction() as connection:
            connection.executemany("DELETE FROM changes WHERE seq = ?", seqs)

    def _set_aside(self, seqs: list[tuple[int]]) -> None:
        with self._transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS invalid AS SELECT * FROM changes WHERE 0")
            connection.executemany("INSERT INTO invalid SELECT * FROM changes WHERE seq = ?", seqs)
            connection.executemany("DELETE FROM changes WHERE seq = ?", seqs)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite rolls back by itself after some errors
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise

    def _begin_after_fork(self) -> None:
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None
        self._pid = os.getpid()
