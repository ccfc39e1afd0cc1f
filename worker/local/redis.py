"""Starts a private Redis server for the demo, ``contact-sync up`` and the tests; it ends with this process."""

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
    EndedAtStartError,
    free_port,
    lock_data_dir,
    note_port,
    noted_port,
    private_directory,
    short_enough,
)
from worker.local.process import SupervisedProcess
from worker.local.redis_binary import find_redis_binary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EmbeddedRedis", "EmbeddedRedisError"]

READY_SECONDS = 15.0
"""Longest time that a starting server may not respond. It takes 0.02 s on an idle machine."""

POLL_SECONDS = 0.005
"""Pause between two polls of a starting server: its socket does not exist yet, so nothing can wake us."""

PORT_ATTEMPTS = 5
"""How many free ports to try: another process may take a port before Redis binds it."""

GRACE_SECONDS = 5.0
"""Time that a server without data gets to end before it is killed."""

GRACE_WITH_DATA_SECONDS = 60.0
"""Time that a server with data gets: it writes its data to disk first."""


class EmbeddedRedis:
    """A real Redis server that starts on entry and leaves nothing behind.

    It listens on a Unix socket in a private directory. The server ends and the directory is removed on exit, on an
    exception, on any signal and even on a SIGKILL of this process (:mod:`worker.local.process`).

    With a data directory, Redis appends every change to a file there and syncs it once a second. The end of this
    process loses nothing; a crash of the machine or of Redis loses about the last second. The socket is in the data
    directory, or the port is noted there, so the URL is the same at every start.
    """

    def __init__(
        self, data_dir: Path | None = None, *, tcp: bool = False, config: Mapping[str, str] | None = None
    ) -> None:
        """Describes the server; entering the context starts it.

        Args:
            data_dir: directory for the data, made if missing; None keeps no data.
            tcp: whether to also listen on a free port of 127.0.0.1, which is then the URL.
            config: more directives of redis.conf; they override ours: ``{"maxmemory": "10mb"}``.
        """
        self._data_dir = None if data_dir is None else data_dir.absolute()
        self._tcp = tcp
        self._config = dict(config or {})
        self._binary = self._private = Path()
        self._port = 0
        self._process: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Its URL for redis-py: ``unix://…``, or ``redis://127.0.0.1:…`` with ``tcp``."""
        return f"redis://127.0.0.1:{self._port}/0" if self._tcp else f"unix://{quote(str(self._socket))}?db=0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running.pid

    @property
    def private_directory(self) -> Path:
        """Directory that only this user can enter; it exists while the server runs, and is removed with all in it."""
        return self._private

    @property
    def _running(self) -> SupervisedProcess:
        if self._process is None:
            raise EmbeddedRedisError("the embedded Redis is not running")
        return self._process

    @property
    def keeps_url(self) -> bool:
        """Whether the next start has the same URL. True with a data directory whose path is short enough."""
        return self._data_dir is not None and (self._tcp or short_enough(self._data_dir))

    @property
    def _socket(self) -> Path:
        # With a port the URL does not name the socket, so the data directory may be on a file system without sockets.
        if self._data_dir is None or self._tcp or not self.keeps_url:
            return self._private / "redis.sock"
        return self._data_dir / "redis.sock"

    @property
    def _highest_port(self) -> int:
        """A node of a cluster has a second port, 10,000 above the first."""
        return 55_535 if self._config.get("cluster-enabled") == "yes" else 65_535

    def __enter__(self) -> Self:
        """Starts the server and returns when it answers.

        Raises:
            RedisNotFoundError: this machine has no suitable Redis server.
            EmbeddedRedisError: the server did not start, or ``data_dir`` cannot be used.
        """
        self._binary = find_redis_binary()
        noted = noted_port(self._data_dir) if self._tcp and self._data_dir is not None else 0
        for attempts_left in reversed(range(PORT_ATTEMPTS if self._tcp and not noted else 1)):
            self._private = private_directory()
            self._port = (noted or free_port(self._highest_port)) if self._tcp else 0
            try:
                self._start()
            except EmbeddedRedisError as error:
                if noted and str(noted) in str(error) and self._data_dir is not None:
                    advice = f"stop the program on that port, or remove {self._data_dir / PORT_FILE} to get another"
                    raise EmbeddedRedisError(f"{str(error).rstrip('.')}; {advice}") from None
                if not attempts_left:
                    raise
            else:
                break
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def restart(self, *, kill: bool = False) -> None:
        """Ends the server and starts it again at the same URL, with the data of ``data_dir`` or empty.

        Args:
            kill: whether to end it with SIGKILL, like a crash.

        Raises:
            EmbeddedRedisError: the server is not running, or did not start again.
        """
        if kill:
            os.kill(self._running.pid, signal.SIGKILL)
        self._running.close()
        self._process = None
        self._private.mkdir(mode=0o700)  # fails if another user made it first: it would not be private
        self._start()

    def _start(self) -> None:
        with ExitStack() as undo, tempfile.TemporaryFile() as log:
            undo.callback(shutil.rmtree, self._private, ignore_errors=True)
            held = []
            if self._data_dir is not None:
                held.append(undo.enter_context(lock_data_dir(self._data_dir)).fileno())
            process = SupervisedProcess(
                [str(self._binary), *self._arguments()],
                grace_seconds=GRACE_SECONDS if self._data_dir is None else GRACE_WITH_DATA_SECONDS,
                remove=[self._private],
                hold=held,  # the supervisor holds the lock, so it lasts exactly as long as a server uses the directory
                stdout=log,
                stderr=log,
            )
            undo.callback(process.close)
            wait_until_ready(process, self._socket, log)
            if self._tcp and self._data_dir is not None:
                note_port(self._data_dir, self._port)
            self._process = process
            undo.pop_all()

    def _arguments(self) -> list[str]:
        """The server's arguments. No file is read, so the configuration of this machine's Redis does not apply."""
        directives = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "daemonize": "no",
            "loglevel": "warning",
            "maxmemory-policy": "noeviction",  # the only policy that the worker accepts: Redis must not evict changes
            "save": "",
            "dir": str(self._data_dir or self._private),
            "appendonly": "no" if self._data_dir is None else "yes",
            "appendfsync": "everysec",
            **self._config,
        }
        return [word for name, value in directives.items() for word in (f"--{name}", value)]


def wait_until_ready(process: SupervisedProcess, path: Path, log: IO[bytes]) -> None:
    """Returns when the server answers PING on its socket.

    An answer on the socket proves that this is our server, and that it has bound its port, if it has one.

    Raises:
        EndedAtStartError: the server ended.
        EmbeddedRedisError: it did not answer in time.
    """
    deadline = time.monotonic() + READY_SECONDS
    with redis.Redis(
        unix_socket_path=str(path),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=READY_SECONDS,
        socket_connect_timeout=READY_SECONDS,
    ) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise EndedAtStartError(f"the embedded Redis did not start: {last_words(log)}")
            try:
                client.ping()
            except redis.BusyLoadingError:  # it reads its data, for as long as that takes
                deadline = time.monotonic() + READY_SECONDS
            except redis.ConnectionError:
                pass
            else:
                return
            time.sleep(POLL_SECONDS)
    raise EmbeddedRedisError(f"the embedded Redis did not answer within {READY_SECONDS:.0f} seconds")


def last_words(log: IO[bytes]) -> str:
    """Returns the last line that the server wrote, without the leading process id and time."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.rpartition(" # ")[2] for line in reversed(lines) if line.strip()), "no output")
