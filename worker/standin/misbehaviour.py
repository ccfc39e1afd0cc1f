"""Applies a fault to a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.standin import faults
from worker.standin.rules import Answer, confirmation, envelope
from worker.standin.wire import BODILESS, Closed, Dripped, Whole, first_of

if TYPE_CHECKING:
    import asyncio

    from worker.standin.memory import Received
    from worker.standin.stand_in import Era, StandIn
    from worker.standin.wire import Connection, Reply

GARBAGE = b"<html><body>It works!</body></html>"
"""A body that is not JSON, such as a proxy in between would send."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that was received in full and has no answer yet.

    Attributes:
        stand_in: the endpoint that received it.
        era: the era it belongs to; a reset ends the era and every wait in it.
        received: the request.
        connection: its connection.
    """

    stand_in: StandIn
    era: Era
    received: Received
    connection: Connection

    def apply(self) -> Answer:
        """Lets the endpoint process the request normally, and returns its answer."""
        return self.stand_in.answer(self.received, self.era.memory)


async def misbehave(order: faults.Order, request: PendingRequest) -> Reply:  # noqa: PLR0911 - one for each group of kinds
    """Applies a fault to a request, and returns the reply for its client."""
    match order.fault:
        case faults.StatusFault() | faults.EnvelopeFault() | faults.GarbageFault() | faults.RedirectFault() as fault:
            return _answer_falsely(fault, request)
        case faults.DropBeforeFault() | faults.DropAfterFault() | faults.ResetFault() as fault:
            return _cut(fault, request)
        case faults.DripHeadersFault() | faults.DripBodyFault() as fault:
            body_only = isinstance(fault, faults.DripBodyFault)
            return Dripped(request.apply(), fault.seconds, body_only, request.era.ended)
        case faults.LargeBodyFault() as fault:
            answer = request.apply() if fault.apply else confirmation(0, 0)
            return Whole(answer, pad_to_bytes=fault.bytes)
        case faults.HangFault() as fault:
            return await _hang(fault, request, order.removed)
        case faults.DelayFault() as fault:
            await first_of(request.era.ended, seconds=fault.seconds)
            return Closed() if request.era.ended.is_set() else Whole(request.apply())
        case faults.LateFault() as fault:
            return await _act_late(fault, request)


def _answer_falsely(
    fault: faults.StatusFault | faults.EnvelopeFault | faults.GarbageFault | faults.RedirectFault,
    request: PendingRequest,
) -> Reply:
    """Returns an answer that does not match what happened to the request."""
    if fault.apply:
        request.apply()
    match fault:
        case faults.StatusFault():
            return Whole(_status_answer(fault))
        case faults.EnvelopeFault(status=status, code=code, message=message, field=field):
            return Whole(Answer(200, envelope(status, code=code, message=message, field=field), code))
        case faults.GarbageFault():
            return Whole(Answer(200, GARBAGE))
        case faults.RedirectFault():
            return Whole(Answer(fault.status, b"", headers=(("location", fault.location),)))


def _status_answer(fault: faults.StatusFault) -> Answer:
    headers = () if fault.retry_after is None else (("retry-after", fault.retry_after),)
    if fault.status in BODILESS:
        return Answer(fault.status, b"", headers=headers)
    if fault.garbage:
        return Answer(fault.status, GARBAGE, headers=headers)
    body = envelope(fault.status, code=fault.code, message=fault.message, field=fault.field)
    return Answer(fault.status, body, fault.code, headers)


def _cut(fault: faults.DropBeforeFault | faults.DropAfterFault | faults.ResetFault, request: PendingRequest) -> Reply:
    """Ends the connection at once, without an answer."""
    match fault:
        case faults.DropAfterFault() | faults.ResetFault(apply=True):
            request.apply()
    return Closed(reset=isinstance(fault, faults.ResetFault))


async def _hang(fault: faults.HangFault, request: PendingRequest, removed: asyncio.Event) -> Reply:
    """Keeps the client waiting until the order is removed or the client disconnects."""
    answer = request.apply() if fault.apply else None
    await first_of(removed, request.connection.lost, request.era.ended)
    if request.connection.lost.is_set() or request.era.ended.is_set():
        return Closed()
    return Whole(answer or request.apply())


async def _act_late(fault: faults.LateFault, request: PendingRequest) -> Reply:
    """Gives no answer, and applies the request later, when its client may no longer expect it."""
    request.era.apply_late(fault.seconds, request.apply)
    if fault.hold:
        await first_of(request.connection.lost, request.era.ended)
    return Closed()
