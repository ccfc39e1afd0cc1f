"""One deadline for a whole request, kept below the HTTP client, at the sockets.

httpx limits each read, write and connect separately. So an answer that drips one byte at a time holds a request
forever, and name resolution has no limit at all. Here every wait gets the time that remains.

**A timeout is a moment here.** httpcore passes the numbers of a request's ``timeout`` extension to the network backend
unchanged. This backend reads them as the monotonic moment by which the request must be over, not as a duration. So
each request carries its own deadline, and threads that share a client share no state.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose every wait ends at the request's deadline.

    Args:
        monotonic: the clock of the deadlines, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._sockets = httpcore.SyncBackend()  # sets TCP_NODELAY, and maps the errors of the operating system
        self._resolver = _Resolver()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> DeadlineStream:
        """Connects to the first address of ``host`` that accepts; ``timeout`` is the deadline's moment.

        Raises:
            httpcore.ConnectTimeout: the deadline came first.
            httpcore.ConnectError: the name is unknown, or no address accepted.
        """
        addresses = self._resolver.addresses(host, self._remaining(timeout))
        failure: Exception = httpcore.ConnectError("the name has no address")
        for index, address in enumerate(addresses):
            # An equal share for each address: a first one that drops packets must leave time for the second.
            share = self._remaining(timeout) / (len(addresses) - index)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return DeadlineStream(stream, self._remaining)
        raise failure

    def _remaining(self, moment: float | None) -> float:
        """Seconds until ``moment``, always more than 0.

        Raises:
            httpcore.ConnectTimeout: it has passed. After the request has begun, the caller translates this.
        """
        if moment is None:
            raise ValueError("timeout: every request through this backend needs a deadline")
        remaining = moment - self._monotonic()
        if remaining <= 0:
            raise httpcore.ConnectTimeout("the deadline passed")
        return remaining


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose every wait ends at the request's deadline.

    Writes are held until the answer is read, and are then sent together. So one place knows whether a request has
    begun, and `unsent` reveals an answer that was there before its request.

    Args:
        stream: the connection.
        remaining: seconds until a moment; raises ``httpcore.ConnectTimeout`` if it has passed.
    """

    def __init__(self, stream: httpcore.NetworkStream, remaining: Callable[[float | None], float]) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.get_extra_info("socket")
        self._remaining = remaining
        self._held: list[bytes] = []

    @property
    def unsent(self) -> bool:
        """Whether a request is still held, because nothing was read from the network since it was written."""
        return bool(self._held)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Holds ``buffer`` until the next read, under that read's deadline."""
        del timeout
        if buffer:
            self._held.append(buffer)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Sends what is held, then reads; ``timeout`` is the deadline's moment.

        Raises:
            httpcore.ConnectTimeout: the deadline passed before the first byte was sent.
            httpcore.WriteTimeout: it came while sending.
            httpcore.ReadTimeout: it came while reading.
            httpcore.ReadError: the connection broke.
        """
        if self._held:
            self._send(timeout)
        try:
            remaining = self._remaining(timeout)
        except httpcore.ConnectTimeout as error:
            raise httpcore.ReadTimeout("the deadline passed") from error
        return self._stream.read(max_bytes, remaining)

    def _send(self, deadline: float | None) -> None:
        self._socket.settimeout(self._remaining(deadline))  # not begun yet, so a ConnectTimeout is right
        pending = memoryview(b"".join(self._held))
        self._held.clear()
        try:
            while pending:
                pending = pending[self._socket.send(pending) :]
                # Again for each piece, or a peer that reads a little at a time would hold us forever.
                self._socket.settimeout(self._remaining(deadline))
        except (TimeoutError, httpcore.ConnectTimeout) as error:
            raise httpcore.WriteTimeout("the deadline passed") from error
        except OSError:
            # The peer may have answered early and closed (as with 413): the read that follows gets that answer, or the
            # same error.
            return

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> DeadlineStream:
        """Returns this connection under TLS; ``timeout`` is the deadline's moment.

        Raises:
            httpcore.ConnectTimeout: the deadline came first (Python's handshake has a total limit of its own).
            httpcore.ConnectError: the handshake failed, or the certificate is not trusted.
        """
        try:
            stream = self._stream.start_tls(ssl_context, server_hostname, self._remaining(timeout))
        except ValueError as error:  # a host that cannot be a server name, such as ".example"
            self.close()
            raise httpcore.ConnectError(f"TLS: {error}") from error
        return DeadlineStream(stream, self._remaining)

    def close(self) -> None:
        """Closes the connection at once."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Answers as the connection does; the pool asks whether an idle one has become readable."""
        return self._stream.get_extra_info(info)


class _Resolver:
    """Resolves names in their own threads, because ``getaddrinfo`` takes no time limit.

    A lookup that hangs is shared by all callers with the same name, so that retries do not pile up threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lookups: dict[str, Future[list[str]]] = {}

    def addresses(self, host: str, timeout_seconds: float) -> list[str]:
        """Returns the addresses of ``host``, in the system's order of preference."""
        if _is_address(host):
            return [host]
        with self._lock:
            lookup = self._lookups.get(host)
            if lookup is None:
                lookup = Future()
                # A daemon, so that a hanging lookup does not keep the process alive.
                threading.Thread(target=self._look_up, args=(host, lookup), name="resolver", daemon=True).start()
                self._lookups[host] = lookup  # after the start: a thread that cannot start leaves nothing behind
        try:
            return lookup.result(timeout_seconds)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the name was not resolved before the deadline") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            raise httpcore.ConnectError(f"the name was not resolved: {error}") from error

    def _look_up(self, host: str, lookup: Future[list[str]]) -> None:
        found: list[str] = []
        failure: Exception | None = None
        try:
            found = [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait, whatever it is
            failure = error
        with self._lock:
            del self._lookups[host]
        if failure is None:
            lookup.set_result(found)
        else:
            lookup.set_exception(failure)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
