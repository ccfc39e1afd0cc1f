"""The private directory, the port and the data directory of an embedded Redis."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

SOCKET_PATH_BYTES = 100
"""Longest path of a Unix socket. The kernel allows 108 bytes on Linux and 104 on macOS, final zero included."""

PORT_FILE = "contact-sync.port"
"""File in the data directory that holds the port, so that the URL stays the same at every start."""


class EmbeddedRedisError(RuntimeError):
    """The Redis server did not start. The message is one line that says why."""


class EndedAtStartError(EmbeddedRedisError):
    """The Redis server ended before it answered."""


def private_directory() -> Path:
    """Makes a directory that only this user can enter, with a path short enough for a Unix socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="contact-sync-"))
    if short_enough(directory):
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="contact-sync-", dir="/tmp"))  # mkdtemp makes it ours alone


def short_enough(directory: Path) -> bool:
    """Whether the path of a socket in this directory is short enough for the kernel."""
    return len(os.fsencode(directory / "redis.sock")) <= SOCKET_PATH_BYTES


def free_port(most: int = 65_535) -> int:
    """Finds a port of 127.0.0.1 that is free now, and no higher than `most`."""
    with ExitStack() as tried:
        while True:  # one that is too high stays taken meanwhile, so another is found
            probe = tried.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port <= most:
                return port


def noted_port(data_dir: Path) -> int:
    """Returns the port noted in the data directory, or 0 if none is noted yet.

    Raises:
        EmbeddedRedisError: the file cannot be read.
    """
    note = data_dir / PORT_FILE
    try:
        return int(note.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise EmbeddedRedisError(f"{note} cannot be read: {error.strerror}") from None
    except ValueError:
        raise EmbeddedRedisError(f"{note} does not contain a port: remove it to get another port") from None


def note_port(data_dir: Path, port: int) -> None:
    """Writes the port to the data directory.

    Raises:
        EmbeddedRedisError: the file cannot be written.
    """
    note = data_dir / PORT_FILE
    try:
        note.write_text(f"{port}\n", encoding="ascii")
    except OSError as error:
        raise EmbeddedRedisError(f"{note} cannot be written: {error.strerror}") from None


def lock_data_dir(data_dir: Path) -> IO[bytes]:
    """Makes the directory if needed and locks it: two servers would damage each other's files.

    Returns:
        The open lock file. The lock lasts until every process that has this file open has closed it.

    Raises:
        EmbeddedRedisError: the directory cannot be used, or another server uses it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "contact-sync.lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise EmbeddedRedisError(f"data directory {data_dir}: another Redis that we started uses it") from None
    except OSError as error:
        raise EmbeddedRedisError(f"data directory {data_dir}: {error.strerror}") from None
    return lock
