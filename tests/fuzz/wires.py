"""What comes over the wire from the endpoint, whole: an answer, or its absence, and never an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpcore

from tests.fuzz.target import Target
from worker.core.outcome import Answer, NoAnswer, decide
from worker.core.rate_headers import read_rate_headers
from worker.delivery.endpoint import BODY_CAP, Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Wire(httpcore.NetworkStream):
    """A connection on which these bytes come, in pieces, and then its end."""

    def __init__(self, said: bytes, piece: int) -> None:
        self._said, self._piece = said, piece

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - httpcore's interface
        taken = min(max_bytes, self._piece)
        said, self._said = self._said[:taken], self._said[taken:]
        return said

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Takes everything."""

    def close(self) -> None:
        self._said = b""

    def get_extra_info(self, info: str) -> Any:  # noqa: ARG002 - the same
        return None


class _Network(httpcore.NetworkBackend):
    """Every connection is this one."""

    wire = _Wire(b"", 1)

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the same
        port: int,  # noqa: ARG002 - the same
        timeout: float | None = None,  # noqa: ARG002 - the same
        local_address: str | None = None,  # noqa: ARG002 - the same
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the same
    ) -> httpcore.NetworkStream:
        return self.wire


_NETWORK: Final = _Network()


def _endpoint() -> Endpoint:
    made = Endpoint("http://endpoint.example", 60.0, reuse=False)
    pool: Any = made._transport._pool  # noqa: SLF001 - there is no other way in
    pool._network_backend = _NETWORK  # noqa: SLF001 - the same
    return made


_ENDPOINT: Final = _endpoint()


def run(data: bytes) -> str:
    """A byte that says how large the pieces are, then what the endpoint sends."""
    _NETWORK.wire = _Wire(data[1:], (data or b"\0")[0] or 65_536)
    answer = _ENDPOINT.send(b"{}", "key")
    decide(answer, 2, 0.0)
    if isinstance(answer, NoAnswer):
        assert answer.why.isprintable()
        return "none"
    assert isinstance(answer, Answer)
    assert 100 <= answer.status <= 999
    assert len(answer.body) <= BODY_CAP
    read_rate_headers(answer.rate_headers, 60.0)
    return "answer" if answer.readable else "cut short"


_OK: Final = b"\0HTTP/1.1 200 OK\r\n"

TARGET: Final = Target(
    "wires",
    "bytes of an HTTP answer",
    run,
    frozenset({"none", "answer", "cut short"}),
    [
        _OK + b'Content-Length: 37\r\n\r\n{"status":200,"error":{"code":""}}   ',
        _OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"\x01HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Away\r\nRetry-After: 1\r\nRateLimit: x\r\n\r\n",
        _OK + b"Content-Length: 9\r\n\r\nabc",
        b"\0HTTP/1.0 204 \r\n\r\n",
        b"\0HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n\0",
        b"\0",
    ],
    [
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"HTTP/2 ",
        b"Content-Length: ",
        b"Transfer-Encoding: ",
        b"chunked",
        b"Connection: close",
        b"\r\n\r\n",
        b"\r\n",
        b"Retry-After: ",
        b"RateLimit: ",
        b"100 Continue",
        b"101 X",
        b"0\r\n\r\n",
        b"\n\n",
        b"\xff",
    ],
    1024,
)
