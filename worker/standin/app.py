"""The stand-in endpoint as a web application: the path that is delivered to, beside those that control it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from worker.standin.control import control_routes
from worker.standin.misbehaviour import InHand, misbehave
from worker.standin.rules import BODY_LIMIT_BYTES, SYNC_PATH, TOO_LARGE, Refusal, read_records
from worker.standin.wire import Closed, Connection, Whole, first_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from worker.standin.rules import Record
    from worker.standin.stand_in import StandIn
    from worker.standin.wire import Reply


def build_app(stand_in: StandIn) -> Starlette:
    """The application that speaks HTTP for a stand-in endpoint.

    It must be served by `worker.standin.server.StandInServer`, which gives it its connections.
    """
    return Starlette(routes=[Route(SYNC_PATH, SyncEndpoint(stand_in), methods=["POST"]), *control_routes(stand_in)])


@dataclass(frozen=True, slots=True)
class SyncEndpoint:
    """`POST /v1/server/contact/sync`, as an ASGI application of its own: what it answers may be no answer."""

    stand_in: StandIn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receives one request whole, and sends what it gets."""
        request = Request(scope, receive)
        try:
            read = await _read(request)
        except ClientDisconnect:
            return  # It was never a request: nothing to answer, nobody to answer to.
        era = self.stand_in.era
        received = era.memory.receive(request.headers.get("server-key"), read)
        request_in_hand = InHand(self.stand_in, era, received, Connection.of(scope))
        try:
            reply = await _reply(request_in_hand)
            era.memory.count_answer(received, reply.answer)
            await reply.send(request_in_hand.connection, send)
        finally:
            era.memory.count_done()


async def _reply(request: InHand) -> Reply:
    """Decides what a request gets, and waits as long as that takes."""
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
    """The records of a request's body. A body that is too long is read to its end, so that its sender gets an answer.

    Raises:
        ClientDisconnect: the client left before the end.
    """
    body = bytearray()
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= BODY_LIMIT_BYTES:
            body += chunk
    return read_records(body) if length <= BODY_LIMIT_BYTES else TOO_LARGE
