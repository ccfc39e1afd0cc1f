"""Keeps connections that wait for nothing from keeping others out.

uvicorn waits for a request as long as its client likes, and once there are too many connections it refuses everybody.
Here a request must arrive in time and an answer must be read in time; and if there is no room for another connection,
the one closes that has kept the server waiting for longest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import h11

from worker.config.listen import HttpProtocol

if TYPE_CHECKING:
    import asyncio

CONNECTIONS_MAX: Final = 200
"""Most connections at once, besides those whose request is at work: calls are bounded, so these are few."""

REQUEST_SECONDS: Final = 10.0
"""How long a whole request may take to arrive, and how long a client may leave an answer unread."""


class Connection(HttpProtocol):
    """A connection that must not keep the server waiting.

    Attributes:
        waits_since: since when the server waits for the client (the loop's time); None while it does not.
    """

    waits_since: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Makes room for itself, and begins to wait for a request."""
        super().connection_made(transport)
        self._wait_for_client()
        if len(self.connections) >= CONNECTIONS_MAX:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Ends the wait once the request is whole."""
        super().data_received(data)
        self._update_wait()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request, unless it is there already."""
        super().on_response_complete()
        self._stop_waiting()
        self._update_wait()

    def pause_writing(self) -> None:
        """Begins to wait for the client to read."""
        super().pause_writing()
        self._wait_for_client()

    def resume_writing(self) -> None:
        """Ends that wait."""
        super().resume_writing()
        self._stop_waiting()
        self._update_wait()

    def _update_wait(self) -> None:
        # A connection that is closing still has an answer that the client has not read.
        if self.conn.their_state in {h11.IDLE, h11.SEND_BODY} or self.transport.is_closing():
            self._wait_for_client()
        elif not self.flow.write_paused:
            self._stop_waiting()

    def _wait_for_client(self) -> None:
        if self.waits_since is None:
            self.waits_since = self.loop.time()
            self._timer = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        self.waits_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make_room(self) -> None:
        others = [
            (each.waits_since, each) for each in self.connections if isinstance(each, Connection) and each is not self
        ]
        waiting = [(since, each) for since, each in others if since is not None]
        if waiting:
            _, longest = min(waiting, key=lambda pair: pair[0])
            self.connections.discard(longest)  # at once: it is lost only in the loop's next turn
            longest.transport.abort()
