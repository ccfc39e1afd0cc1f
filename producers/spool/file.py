"""The file of a spool: readable by its owner only, and opened so that a commit survives a power cut."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from producers.contract.errors import SettingsError
from producers.sqlite_text import any_text

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

BUSY_SECONDS: Final = 10.0
"""How long to wait while another process writes; an append takes milliseconds."""

DAMAGED: Final = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises; the second if its message quotes a damaged file, which Python then cannot decode."""

_LOG_BYTES: Final = 4 * 1024 * 1024  # the write-ahead log beside the file is cut back to this size
RESERVE_BYTES: Final = 2 * _LOG_BYTES
"""Largest size of the reserve: removing changes writes to the log, and then moves what the log holds into the file."""

_RESERVE_LEAST: Final = 64 * 1024
"""Least size of it: removing a few changes takes less."""

_APPLICATION_ID: Final = 0x4373_7031  # marks a file as our spool, in this format

_CREATE: Final = (
    # Numbers are never reused, so that a forwarded change cannot be mistaken for one spooled later.
    """CREATE TABLE changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL, contact TEXT NOT NULL, op TEXT NOT NULL, at INTEGER NOT NULL,
        source TEXT, traceparent TEXT, lane TEXT
    )""",
    "CREATE TABLE log (namespace TEXT NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
)


def open_spool(path: Path, namespace: str, max_bytes: int) -> sqlite3.Connection:
    """Returns a connection to the spool at ``path``, and creates the file if there is none.

    Raises:
        SettingsError: the file cannot be opened, is not a spool, or holds changes of another namespace.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            create(path)
            return _connect(path, namespace, max_bytes)
        except DAMAGED as error:
            # If two processes create the same file at once, SQLite refuses one instead of making it wait.
            if not busy(error) or time.monotonic() > deadline:
                raise SettingsError(f"the spool {path} cannot be opened: {said(error)}") from None
            time.sleep(0.01)
        except OSError as error:
            raise SettingsError(f"the spool {path} cannot be opened: {error.strerror}") from None


def create(path: Path) -> None:
    """Creates the file if there is none, readable by its owner only, because it will contain ids.

    Raises:
        OSError: it cannot be created.
    """
    # An existing file is not opened here: closing it would release the locks that this process may hold on it.
    # A link that points at nothing counts as existing, so what it points at is created.
    with suppress(FileExistsError):
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def hold_reserve(path: Path, max_bytes: int) -> None:
    """Allocates the reserve beside the spool, if it is not there: a full disk then still has room to drain the spool.

    Where the disk has less room, it is half as large, or half of that, and so on; or there is none.

    Raises:
        OSError: it cannot be opened.
    """
    reserve = reserve_of(path)
    create(reserve)
    with reserve.open("r+b", buffering=0) as file:
        size = 0 if os.fstat(file.fileno()).st_size else min(RESERVE_BYTES, 2 * max_bytes)
        while size >= _RESERVE_LEAST and not _allocated(file, size):
            size //= 2


def _allocated(file: FileIO, size: int) -> bool:
    """Whether a new file got this size: written, because a hole would allocate nothing."""
    with suppress(OSError):
        if file.write(bytes(size)) == size:
            return True
    file.seek(0)
    file.truncate()
    return False


def release_reserve(path: Path) -> bool:
    """Frees the reserve; returns whether there was one."""
    try:
        held = reserve_of(path).stat().st_size > 0
        reserve_of(path).unlink()
    except OSError:
        return False
    return held


def reserve_of(path: Path) -> Path:
    """Returns the path of the reserve of a spool."""
    return path.with_name(f"{path.name}-reserve")


def said(error: Exception) -> str:
    """Returns the error's text on one line: it may quote what stands in a damaged file."""
    return " ".join(str(error).split())


def busy(error: Exception) -> bool:
    """Returns whether another connection holds the file, which passes."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _connect(path: Path, namespace: str, max_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # Text that is not UTF-8 would make its whole page unreadable; so its row is set aside like any other invalid one.
    connection.text_factory = any_text
    try:
        connection.execute("BEGIN IMMEDIATE")
        _prepare(connection, path, namespace)
        connection.execute("COMMIT")
        _index(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        [(page_bytes,)] = connection.execute("PRAGMA page_size")
        connection.execute(f"PRAGMA max_page_count = {max_bytes // page_bytes}").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, namespace: str) -> None:
    """Creates the tables of a new file, and checks that an existing one is ours."""
    [(application_id,)] = connection.execute("PRAGMA application_id")
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master")
    if not tables and not application_id:
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("INSERT INTO log VALUES (?)", (namespace,))
    elif application_id != _APPLICATION_ID:
        raise SettingsError(f"{path} is not a spool of this version of contact-sync")
    else:
        _add_lane(connection)
    recorded = [name for (name,) in connection.execute("SELECT namespace FROM log")]
    if len(recorded) != 1:
        raise SettingsError(f"{path} is damaged: it names {len(recorded)} namespaces and not one")
    if recorded != [namespace]:
        raise SettingsError(f"the spool {path} is for namespace {recorded[0]!r}, not {namespace!r}")


def _index(connection: sqlite3.Connection) -> None:
    """Lets an owner's changes be found, also in a file of an earlier version. On a full disk only more slowly."""
    try:
        connection.execute("CREATE INDEX IF NOT EXISTS changes_owner ON changes (owner)")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
            raise


def _add_lane(connection: sqlite3.Connection) -> None:
    """Adds the lane to a file of an earlier version. Its changes have none, which is the live one."""
    for table in ("changes", "invalid"):
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
        if columns and "lane" not in columns:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN lane TEXT")
