"""The file of a spool: made for its owner alone, opened so that what is committed outlasts a power cut."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from producers.contract.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

BUSY_SECONDS: Final = 10.0
"""How long another process may be writing; an append takes milliseconds."""

_LOG_BYTES: Final = 4 * 1024 * 1024  # what the write-ahead log beside the file is cut back to
_APPLICATION_ID: Final = 0x4373_7031  # says that a file is a spool of ours, and of which format

_CREATE: Final = (
    # Numbers are never used again, so that a change that was forwarded cannot be taken for one spooled since.
    """CREATE TABLE changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL, contact TEXT NOT NULL, op TEXT NOT NULL, at INTEGER NOT NULL,
        source TEXT, traceparent TEXT
    )""",
    "CREATE TABLE log (namespace TEXT NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
)


def open_spool(path: Path, namespace: str, max_bytes: int) -> sqlite3.Connection:
    """A connection to the spool at ``path``, which is made if there is none.

    Raises:
        SettingsError: the file cannot be opened, is none of ours, or holds changes of another namespace.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            create(path)
            return _connect(path, namespace, max_bytes)
        except sqlite3.Error as error:
            # Two that make the same file at once are not kept waiting by SQLite, but refused.
            if not busy(error) or time.monotonic() > deadline:
                raise SettingsError(f"the spool {path} cannot be opened: {error}") from None
            time.sleep(0.01)
        except OSError as error:
            raise SettingsError(f"the spool {path} cannot be opened: {error.strerror}") from None


def create(path: Path) -> None:
    """Make the file if there is none, for its owner alone: ids are in it.

    Raises:
        OSError: it cannot be made.
    """
    # Only made here and never opened: closing it would let go of the locks that this process may have on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def busy(error: sqlite3.Error) -> bool:
    """Whether another connection has the file, which passes."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _connect(path: Path, namespace: str, max_bytes: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN IMMEDIATE")
        _prepare(connection, path, namespace)
        connection.execute("COMMIT")
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
    """Make the tables of a new file, and see that one that was there is ours."""
    [(application_id,)] = connection.execute("PRAGMA application_id")
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_master")
    if not tables and not application_id:
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("INSERT INTO log VALUES (?)", (namespace,))
    elif application_id != _APPLICATION_ID:
        raise SettingsError(f"{path} is no spool of this version of contact-sync")
    [(recorded,)] = connection.execute("SELECT namespace FROM log")
    if recorded != namespace:
        raise SettingsError(f"the spool {path} is of namespace {recorded!r}, not {namespace!r}")
