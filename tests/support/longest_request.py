"""How many words the requests have that a Redis gets: counted from what it tells of them itself (MONITOR)."""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from worker.local.redis import EmbeddedRedis

_WORD = re.compile(rb'"(?:[^"\\]|\\.)*"')
_END = b"ECHO-the-end"


class LongestRequest:
    """The longest request since it began, whoever sent it; what scripts run inside does not count.

    Args:
        server: with a socket.

    Attributes:
        words: how many words it has.
        name: of its command.
    """

    def __init__(self, server: EmbeddedRedis) -> None:
        self._path = urlsplit(server.url).path
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._listens = threading.Event()
        self.words = 0
        self.name = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listens.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self._path)
            other.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (len(_END), _END))
            other.recv(100)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _count(self) -> None:
        with socket.socket(socket.AF_UNIX) as mine:
            mine.connect(self._path)
            mine.sendall(b"MONITOR\r\n")
            with mine.makefile("rb") as lines:
                assert lines.readline() == b"+OK\r\n"
                self._listens.set()
                for line in lines:
                    if _END in line:
                        return
                    if b" lua] " not in line[:60]:
                        words = _WORD.findall(line)
                        if len(words) > self.words:
                            self.words, self.name = len(words), words[0].decode()
