"""Where an embedded Redis lives: its private directory, its port, its data directory."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

SOCKET_PATH_BYTES = 100
"""Longest path of a socket: the kernel's limit is 108 bytes on Linux and 104 on macOS, with the final zero."""

PORT_FILE = "contact-sync.port"
"""Where the port is noted beside the data, so that the URL that producers were given stays true."""


class EmbeddedRedisError(RuntimeError):
    """The server did not start; the message is one line that says why."""


def private_directory() -> Path:
    """Makes a directory that only this user can enter, with a path short enough for a socket in it."""
    directory = Path(tempfile.mkdtemp(prefix="contact-sync-"))
    if short_enough(directory):
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="contact-sync-", dir="/tmp"))  # mkdtemp makes it ours alone


def short_enough(directory: Path) -> bool:
    """Whether a socket fits into the directory: the kernel takes no longer path."""
    return len(os.fsencode(directory / "redis.sock")) <= SOCKET_PATH_BYTES


def free_port() -> int:
    """Finds a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def kept_port(data_dir: Path) -> int:
    """The port that the data has been reached at since its first start, 0 if there was none.

    Raises:
        EmbeddedRedisError: the note of it cannot be read.
    """
    note = data_dir / PORT_FILE
    try:
        return int(note.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise EmbeddedRedisError(f"{note} cannot be read: {error.strerror}") from None
    except ValueError:
        raise EmbeddedRedisError(f"{note} holds no port: remove it, and another port is chosen") from None


def keep_port(data_dir: Path, port: int) -> None:
    """Notes the port beside the data.

    Raises:
        EmbeddedRedisError: the note cannot be written.
    """
    note = data_dir / PORT_FILE
    try:
        note.write_text(f"{port}\n", encoding="ascii")
    except OSError as error:
        raise EmbeddedRedisError(f"{note} cannot be written: {error.strerror}") from None


def locked(data_dir: Path) -> IO[bytes]:
    """Makes the directory if need be and locks it, since two servers would ruin each other's files.

    Returns:
        The lock: it holds until every process that has this file open has closed it.

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
