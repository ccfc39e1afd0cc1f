"""The client of the endpoint: sends bytes, and returns an answer or its absence, never later than the deadline.

Only this module and `deadline` know httpx and httpcore; this one returns values of `worker.core.outcome`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import httpcore
import httpx

from worker.core.envelope import sanitize
from worker.core.outcome import Answer, NoAnswer
from worker.core.rate_headers import HEADERS
from worker.delivery.deadline import DeadlineBackend, DeadlineStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

PATH: Final = "/v1/server/contact/sync"
"""Path of the contacts, below the base URL (contract, section 1)."""

BODY_CAP: Final = 1024 * 1024
"""Most bytes that are read of an answer's body; an envelope has a few hundred."""

# Node, Apache and uvicorn close an idle connection after 5 s, nginx and cloud balancers later. A request sent into
# such a close gets no answer, and its pairs must be repaired: so we close first.
_KEEP_ALIVE_SECONDS = 4.0
# More than any worker has threads, so that nobody waits for a connection.
_MAX_CONNECTIONS = 100

_HEADERS = {
    "Accept": "application/json",
    # The body is capped as it comes from the wire: we ask for nothing compressed, and decompress nothing.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "contact-sync",
}

# Everything that can go wrong before a request's first byte; after it, the endpoint may have acted.
# LocalProtocolError: a header that h11 refuses to write. UnsupportedProtocol cannot happen here, and sends nothing.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
)


class Endpoint:
    """Sends request bodies to the endpoint. Threads can share one; processes cannot (make it after the fork).

    It does not use proxies or certificates of the environment, follow redirects or keep cookies.

    Args:
        url: base URL, http or https (CONTACT_SYNC_ENDPOINT_URL).
        timeout_seconds: longest time for a request, from name resolution to the last byte
            (CONTACT_SYNC_REQUEST_TIMEOUT_SECONDS).
        monotonic: the clock of deadlines, in seconds.
        max_connections: most open connections.
        reuse: whether a connection serves more than one request.
        ssl_context: which authorities to trust; None: those of certifi.

    Raises:
        ValueError: ``url`` is not a valid http or https base URL.
    """

    def __init__(  # noqa: PLR0913 - the last three are keyword-only, with defaults
        self,
        url: str,
        timeout_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        max_connections: int = _MAX_CONNECTIONS,
        reuse: bool = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = _target(url)
        if ssl_context is None and self._url.scheme == "https":
            ssl_context = _trusting()  # reading the authorities takes longer than a request: not for plain http
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._last = threading.local()
        self._transport = _Transport(
            httpcore.ConnectionPool(
                ssl_context=ssl_context,
                max_connections=max_connections,
                max_keepalive_connections=max_connections if reuse else 0,
                keepalive_expiry=_KEEP_ALIVE_SECONDS,
                network_backend=DeadlineBackend(monotonic),
            )
        )

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answer | NoAnswer:
        """POSTs ``body`` and returns what came back; never raises for what happens on the network.

        Args:
            body: the request's JSON.
            server_key: value of the ``Server-Key`` header, sent unchanged.
            deadline_monotonic: when the request must be over, if that is before the timeout (monotonic, seconds).
        """
        now = self._monotonic()
        deadline = now + self._timeout_seconds
        if deadline_monotonic is not None:
            deadline = min(deadline, deadline_monotonic)
        if deadline <= now:
            return NoAnswer(sent=False, why="the deadline passed before the request began")
        # DeadlineBackend takes moments; the pool, which waits by itself, takes a duration.
        timeout = {"connect": deadline, "write": deadline, "read": deadline, "pool": deadline - now}
        request = httpx.Request(
            "POST",
            self._url,
            headers={**_HEADERS, "Server-Key": server_key},
            content=body,
            extensions={"timeout": timeout},
        )
        try:
            response = self._transport.handle_request(request)
        except _NOT_SENT as error:
            return NoAnswer(sent=False, why=_why(error))
        except httpx.TransportError as error:
            return NoAnswer(sent=True, why=_why(error))
        self._last.stream = response.extensions["network_stream"]
        try:
            return _read(response)
        finally:
            response.close()

    def distrust(self) -> None:
        """Closes the connection of this thread's last answer: what comes over it next may belong to another request."""
        stream = getattr(self._last, "stream", None)
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Closes all connections; a request under way in another thread ends without an answer."""
        self._transport.close()


class _Transport(httpx.HTTPTransport):
    """httpx's transport over our own connection pool.

    Its constructor offers no network backend. `httpx.Client` is not used: its redirects, cookies, proxies and log lines
    are unwanted, and it costs half as much again (measured: 290 against 195 microseconds of processor time a request).
    """

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool


def _trusting() -> ssl.SSLContext:
    """Trusts certifi's authorities, whatever the environment says."""
    context = httpx.create_ssl_context(trust_env=False)
    context.keylog_filename = None  # type: ignore[assignment] # otherwise SSLKEYLOGFILE would have the keys written to a file
    return context


def _target(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"endpoint URL: {error}") from None
    if base.scheme not in {"http", "https"} or not base.host:
        raise ValueError("endpoint URL: must start with http:// or https:// and name a host")
    if base.userinfo or base.query or base.fragment:
        raise ValueError("endpoint URL: must hold no user, password, query or fragment")
    return base.copy_with(path=base.path.rstrip("/") + PATH)


def _read(response: httpx.Response) -> Answer | NoAnswer:
    stream = response.extensions["network_stream"]
    if isinstance(stream, DeadlineStream) and stream.unsent:
        # These bytes were in the buffer before the request was sent: the server answered an earlier one twice. They
        # must not confirm this request. Closing the response unread also closes the connection.
        return NoAnswer(sent=False, why="the connection held an answer to no request")
    retry_after = response.headers.get("Retry-After")
    rate = {name: response.headers[name] for name in HEADERS if name in response.headers}
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > BODY_CAP:
                return Answer(response.status_code, retry_after, b"", readable=False, rate_headers=rate)
    except httpx.TransportError:
        return Answer(response.status_code, retry_after, b"", readable=False, rate_headers=rate)
    return Answer(response.status_code, retry_after, bytes(body), rate_headers=rate)


def _why(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return sanitize(f"no connection: {error}")  # text of the operating system or of OpenSSL
        case httpx.PoolTimeout():
            return "no free connection before the deadline"
        case httpx.TimeoutException():
            return "no answer before the deadline"
        case httpx.NetworkError():
            return sanitize(f"the connection broke: {error}")
        case httpx.LocalProtocolError():
            return (
                "the request holds a header that cannot be sent"  # h11's text would quote the header, which is secret
            )
        case _:
            return (
                "the connection was closed without an answer, or the answer was not HTTP"  # h11's text would quote it
            )
