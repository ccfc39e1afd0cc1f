"""A Redis of one's own, for the demo, ``contact-sync up`` and the tests: started here, and gone with us."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.local.data_dir import (
    PORT_FILE,
    EmbeddedRedisError,
    free_port,
    keep_port,
    kept_port,
    locked,
    private_directory,
    short_enough,
)
from worker.local.process import SupervisedProcess
from worker.local.redis_binary import find_redis_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EmbeddedRedis", "EmbeddedRedisError"]

READY_SECONDS = 15.0
"""Longest that a server may give no sign of life after its start; it takes 0.02 s on an idle machine."""

POLL_SECONDS = 0.005
"""Pause between two looks at a server that starts: nothing could wake us, its socket is not there yet."""

PORT_ATTEMPTS = 5
"""How many free ports to try: another process may take one between our finding it and Redis' binding it."""

GRACE_SECONDS = 5.0
"""How long a server without data may take to end before it is killed."""

GRACE_WITH_DATA_SECONDS = 60.0
"""How long one with data may take, since it writes out what it has."""


class EmbeddedRedis:
    """A real Redis server that is started on entry and leaves nothing behind.

    It listens on a Unix socket in a private directory. On exit, on an exception, on any signal and
    even on a SIGKILL of this process the server ends and the directory goes (:mod:`worker.local.process`).
    With a data directory every change is appended there and synced once a second: an end of this
    process loses nothing, a crash of the machine or of Redis the last second or so. The socket is in
    that directory then, or the port is noted there, so that the URL is the same at every start.
    """

    def __init__(
        self, data_dir: Path | None = None, *, tcp: bool = False, config: Mapping[str, str] | None = None
    ) -> None:
        """Describes the server; entering the context starts it.

        Args:
            data_dir: directory to keep the data in, made if missing; nothing is kept if None.
            tcp: whether to listen on a free port of 127.0.0.1 too, and give that as the URL.
            config: further directives of redis.conf, which win over ours: ``{"maxmemory": "10mb"}``.
        """
        self._data_dir = None if data_dir is None else data_dir.absolute()
        self._tcp = tcp
        self._config = dict(config or {})
        self._binary = self._private = Path()
        self._port = 0
        self._kept: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Where it listens, as redis-py takes it: ``unix://…``, or ``redis://127.0.0.1:…`` with ``tcp``."""
        return f"redis://127.0.0.1:{self._port}/0" if self._tcp else f"unix://{quote(str(self._socket))}?db=0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running.pid

    @property
    def _running(self) -> SupervisedProcess:
        if self._kept is None:
            raise EmbeddedRedisError("the embedded Redis is not running")
        return self._kept

    @property
    def keeps_url(self) -> bool:
        """Whether the next start has the same URL: with a data directory, unless a socket does not fit into it."""
        return self._data_dir is not None and (self._tcp or short_enough(self._data_dir))

    @property
    def _socket(self) -> Path:
        # With a port, that is the URL, and the data directory need not be on a file system that takes sockets.
        if self._data_dir is None or self._tcp or not self.keeps_url:
            return self._private / "redis.sock"
        return self._data_dir / "redis.sock"

    def __enter__(self) -> Self:
        """Starts the server and returns when it answers.

        Raises:
            RedisNotFoundError: this machine has none that fits.
            EmbeddedRedisError: it did not start, or ``data_dir`` cannot be used.
        """
        self._binary = find_redis_binary()
        noted = kept_port(self._data_dir) if self._tcp and self._data_dir is not None else 0
        for attempts_left in reversed(range(PORT_ATTEMPTS if self._tcp and not noted else 1)):
            self._private = private_directory()
            self._port = (noted or free_port()) if self._tcp else 0
            try:
                self._start()
            except EmbeddedRedisError as error:
                if noted and str(noted) in str(error) and self._data_dir is not None:
                    advice = f"end what uses that port, or remove {self._data_dir / PORT_FILE} to have another"
                    raise EmbeddedRedisError(f"{str(error).rstrip('.')}; {advice}") from None
                if not attempts_left:
                    raise
            else:
                break
        return self

    def __exit__(self, *_: object) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def restart(self, *, kill: bool = False) -> None:
        """Ends the server and starts it again at the same URL, with what ``data_dir`` kept, or empty.

        Args:
            kill: end it with SIGKILL, as a crash would.

        Raises:
            EmbeddedRedisError: it is not running, or did not start again.
        """
        if kill:
            os.kill(self._running.pid, signal.SIGKILL)
        self._running.close()
        self._kept = None
        self._private.mkdir(mode=0o700)  # fails where someone else was faster: their directory is not private
        self._start()

    def _start(self) -> None:
        with ExitStack() as undo, tempfile.TemporaryFile() as log:
            undo.callback(shutil.rmtree, self._private, ignore_errors=True)
            held = []
            if self._data_dir is not None:
                held.append(undo.enter_context(locked(self._data_dir)).fileno())
            kept = SupervisedProcess(
                [str(self._binary), *self._arguments()],
                grace_seconds=GRACE_SECONDS if self._data_dir is None else GRACE_WITH_DATA_SECONDS,
                remove=[self._private],
                hold=held,  # by the keeper: so the directory stays locked exactly as long as a server uses it
                stdout=log,
                stderr=log,
            )
            undo.callback(kept.close)
            wait_until_ready(kept, self._socket, log)
            if self._tcp and self._data_dir is not None:
                keep_port(self._data_dir, self._port)
            self._kept = kept
            undo.pop_all()

    def _arguments(self) -> list[str]:
        """The server's command line; without a file, so no configuration of this machine's Redis applies."""
        directives = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "daemonize": "no",
            "loglevel": "warning",
            "maxmemory-policy": "noeviction",  # the only one that the worker accepts: no change may vanish
            "save": "",
            "dir": str(self._data_dir or self._private),
            "appendonly": "no" if self._data_dir is None else "yes",
            "appendfsync": "everysec",
            **self._config,
        }
        return [word for name, value in directives.items() for word in (f"--{name}", value)]


def wait_until_ready(kept: SupervisedProcess, path: Path, log: IO[bytes]) -> None:
    """Returns when the server answers PING on its socket.

    That the socket answers proves that the server is ours, and that it got its port too, if any.

    Raises:
        EmbeddedRedisError: it ended, or gave no sign of life for too long.
    """
    deadline = time.monotonic() + READY_SECONDS
    with redis.Redis(
        unix_socket_path=str(path),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=READY_SECONDS,
        socket_connect_timeout=READY_SECONDS,
    ) as client:
        while time.monotonic() < deadline:
            if kept.poll() is not None:
                raise EmbeddedRedisError(f"the embedded Redis did not start: {last_words(log)}")
            try:
                client.ping()
            except redis.BusyLoadingError:  # it reads its data, which may take as long as it takes
                deadline = time.monotonic() + READY_SECONDS
            except redis.ConnectionError:
                pass
            else:
                return
            time.sleep(POLL_SECONDS)
    raise EmbeddedRedisError(f"the embedded Redis did not answer within {READY_SECONDS:.0f} seconds")


def last_words(log: IO[bytes]) -> str:
    """The last line that the server wrote, without the process id and time before it."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.rpartition(" # ")[2] for line in reversed(lines) if line.strip()), "it said nothing")
