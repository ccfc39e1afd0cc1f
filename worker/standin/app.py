"""The web application of the stand-in endpoint: the platform's path, and the paths that control the stand-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from worker.standin.control import control_routes
from worker.standin.misbehaviour import PendingRequest, misbehave
from worker.standin.rules import BODY_LIMIT_BYTES, SYNC_PATH, TOO_LARGE, Refusal, read_records
from worker.standin.wire import Closed, Connection, Whole, first_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from worker.standin.rules import Record
    from worker.standin.stand_in import StandIn
    from worker.standin.wire import Reply


def build_app(stand_in: StandIn) -> Starlette:
    """Builds the web application of a stand-in endpoint.

    Only `worker.standin.server.StandInServer` can serve it, because it gives each request its connection.
    """
    return Starlette(routes=[Route(SYNC_PATH, SyncEndpoint(stand_in), methods=["POST"]), *control_routes(stand_in)])


@dataclass(frozen=True, slots=True)
class SyncEndpoint:
    """`POST /v1/server/contact/sync`, as a separate ASGI application: a fault may leave a request without an answer."""

    stand_in: StandIn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads one whole request, and sends its answer."""
        request = Request(scope, receive)
        try:
            read = await _read(request)
        except ClientDisconnect:
            return  # The request never arrived in full, and nobody waits for an answer.
        era = self.stand_in.era
        received = era.memory.receive(request.headers.get("server-key"), read)
        pending = PendingRequest(self.stand_in, era, received, Connection.of(scope))
        try:
            reply = await _reply(pending)
            era.memory.count_answer(received, reply.answer)
            await reply.send(pending.connection, send)
        finally:
            era.memory.count_done()


async def _reply(request: PendingRequest) -> Reply:
    """Decides how to answer a request, and waits as long as its fault or the latency demands."""
    order = request.era.faults.take()
    if order is not None:
        request.era.memory.count_fault(request.received, order.fault.kind)
    latency_seconds = request.stand_in.settings.latency_seconds
    if latency_seconds:
        await first_of(request.era.ended, seconds=latency_seconds)
        if request.era.ended.is_set():
            return Closed()
    return Whole(request.apply()) if order is None else await misbehave(order, request)


async def _read(request: Request) -> list[Record] | Refusal:
    """Reads the records of a request's body. A body that is too long is still read to its end, to answer its sender.

    Raises:
        ClientDisconnect: the client disconnected before the end.
    """
    body = bytearray()
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= BODY_LIMIT_BYTES:
            body += chunk
    return read_records(body) if length <= BODY_LIMIT_BYTES else TOO_LARGE
