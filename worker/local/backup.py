"""Backs up the data of an embedded Redis into one file, and restores it from there."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.local.data_dir import EmbeddedRedisError, EndedAtStartError, noted_port
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator

_RDB: Final = "dump.rdb"
_MAGIC: Final = (b"REDIS", b"VALKEY")
"""How a file with the data of a server begins; that of Valkey since its version 9."""
_MAGIC_LENGTH: Final = max(map(len, _MAGIC))
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_POLL_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 60.0
_SAVE_SECONDS: Final = 3600.0
"""Longest that Redis may take to write its data."""


class BackupError(EmbeddedRedisError):
    """The backup was not made or not restored. The message is one line that says why."""


@contextmanager
def server_of(data_dir: Path) -> Iterator[str]:
    """The URL of the Redis that uses a data directory: the running one, or one that is started meanwhile.

    Raises:
        BackupError: there is no data, or it cannot be reached.
        EmbeddedRedisError, RedisNotFoundError: the server did not start.
    """
    if not any(data_dir.glob("appendonly*")):
        raise BackupError(f"{data_dir} holds no data of contact-sync up")
    running = _running(data_dir)
    if running:
        yield running
        return
    with EmbeddedRedis(data_dir) as server:
        yield server.url


def _running(data_dir: Path) -> str:
    """The URL of the server that uses the directory now; empty if there is none."""
    urls = [f"unix://{quote(str((data_dir / 'redis.sock').absolute()))}"]
    if port := noted_port(data_dir):
        urls.append(f"redis://127.0.0.1:{port}/0")
    for url in urls:
        with _connected(url) as client, suppress(redis.RedisError):
            directory = client.config_get("dir").get("dir") or ""
            if Path(directory) == data_dir.resolve():  # not another program on that port
                return url
    return ""


def _connected(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, protocol=2, socket_timeout=_ANSWER_SECONDS, retry=Retry(NoBackoff(), 0))


def save(url: str, data_dir: Path, file: Path) -> None:
    """Writes all data of a server into a file that only this user can read; it is there whole, or as it was before.

    Several backups of a directory wait for each other: the server writes all of them into the same file first.

    Raises:
        BackupError: Redis could not write it, or the file cannot be written.
        redis.RedisError: Redis does not answer, or refuses.
    """
    with _alone(data_dir):
        _save(url, data_dir, file)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    opened = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _save(url: str, data_dir: Path, file: Path) -> None:
    with _connected(url) as client:
        _wait_until(client, "rdb_bgsave_in_progress", "aof_rewrite_in_progress")
        client.bgsave()
        found = _wait_until(client, "rdb_bgsave_in_progress")
    if found["rdb_last_bgsave_status"] != "ok":
        raise BackupError(f"Redis could not write its data into {data_dir}: is the disk full?")
    written = data_dir / _RDB
    part = file.with_name(f"{file.name}.part")
    try:
        with written.open("rb") as source, os.fdopen(os.open(part, _CREATE, 0o600), "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BackupError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        written.unlink(missing_ok=True)


def check_restorable(file: Path, data_dir: Path) -> None:
    """Checks that the file looks like a backup and that the directory is free for its data.

    Raises:
        BackupError: one of them is not.
    """
    try:
        with file.open("rb") as opened:
            if not opened.read(_MAGIC_LENGTH).startswith(_MAGIC):
                raise BackupError(f"{file} is not a backup")
        if data_dir.exists() and any(data_dir.iterdir()):
            raise BackupError(f"{data_dir} is not empty: move it away, or name another directory")
    except OSError as error:
        raise BackupError(f"{error.filename or file} cannot be read: {error.strerror}") from None


@contextmanager
def restored(file: Path, data_dir: Path) -> Iterator[str]:
    """The URL of a server with the backup's data. At its end the data is in the directory, if nothing went wrong.

    Raises:
        BackupError: the data cannot be written, or a server of this version cannot read it.
        RedisNotFoundError: this machine has no Redis server.
    """
    check_restorable(file, data_dir)
    beside = data_dir.with_name(f"{data_dir.name}.restoring")  # so that the directory has all of the data, or none
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700, parents=True)
        shutil.copyfile(file, beside / _RDB)
        # An append-only file counts before a backup. So it reads the backup first, and begins one with what it read.
        with EmbeddedRedis(beside, config={"appendonly": "no"}) as server, _connected(server.url) as client:
            yield server.url
            client.config_set("appendonly", "yes")
            found = _wait_until(client, "aof_rewrite_in_progress", "aof_rewrite_scheduled")
            if found["aof_last_bgrewrite_status"] != "ok":
                raise BackupError(f"Redis could not write its data into {beside}: is the disk full?")
        for name in (_RDB, "contact-sync.lock"):
            (beside / name).unlink(missing_ok=True)
        beside.replace(data_dir)
    except EndedAtStartError:  # its directory is new, and has only the backup
        raise BackupError(f"{file} cannot be read: it is damaged, or of a newer server") from None
    except OSError as error:
        raise BackupError(f"{data_dir} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _wait_until(client: redis.Redis, *over: str) -> dict[str, Any]:
    deadline = time.monotonic() + _SAVE_SECONDS
    while time.monotonic() < deadline:
        found: dict[str, Any] = dict(client.info("persistence"))
        if not any(found[name] for name in over):
            return found
        time.sleep(_POLL_SECONDS)
    raise BackupError(f"Redis did not write its data within {_SAVE_SECONDS:.0f} seconds")
