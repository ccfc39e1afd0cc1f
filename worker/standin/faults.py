"""Faults to order: their models, one a kind, and the queue they wait in.

An order names a kind and what belongs to it. Every order may say how many requests it meets
(`times`, until removed when left out) and how likely it meets one (`probability`, with a `seed`).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from worker.standin.settings import Seconds  # noqa: TC001 - pydantic reads it when the models are made

HeaderValue: TypeAlias = Annotated[str, Field(pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$")]
"""What may stand in a header: printable ASCII that neither begins nor ends with a space."""

FinalStatus: TypeAlias = Annotated[int, Field(ge=200, le=599)]


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0


class StatusFault(_Fault):
    """An HTTP status, with an error envelope or, if `garbage`, a body that is no JSON."""

    kind: Literal["status"]
    status: FinalStatus
    code: str = ""
    field: str = ""
    message: str = ""
    retry_after: HeaderValue | None = None
    garbage: bool = False
    apply: bool = False


class EnvelopeFault(_Fault):
    """HTTP 200 whose envelope says otherwise."""

    kind: Literal["envelope"]
    code: str
    field: str = ""
    message: str = ""
    status: FinalStatus = 400
    apply: bool = False


class GarbageFault(_Fault):
    """HTTP 200 with a body that is no JSON."""

    kind: Literal["garbage"]
    apply: bool = False


class DropBeforeFault(_Fault):
    """The connection is closed without an answer; nothing was applied."""

    kind: Literal["drop_before"]


class DropAfterFault(_Fault):
    """The connection is closed without an answer; the request was applied."""

    kind: Literal["drop_after"]


class ResetFault(_Fault):
    """The connection is reset (RST) without an answer."""

    kind: Literal["reset"]
    apply: bool = False


class HangFault(_Fault):
    """No answer until the order is removed; then the request is applied, if it was not, and answered."""

    kind: Literal["hang"]
    apply: bool = False


class DelayFault(_Fault):
    """The request waits, then is applied and answered, also if its client has gone meanwhile."""

    kind: Literal["delay"]
    seconds: Seconds


class LateFault(_Fault):
    """No answer ever, and the request is applied later; the connection is closed now, or held open if `hold`."""

    kind: Literal["late"]
    seconds: Seconds
    hold: bool = False


class DripHeadersFault(_Fault):
    """Applied, then answered with a byte each `seconds` from the first on; the connection is closed at the end."""

    kind: Literal["drip_headers"]
    seconds: Seconds


class DripBodyFault(_Fault):
    """Applied, then answered: the headers at once, the body a byte each `seconds`."""

    kind: Literal["drip_body"]
    seconds: Seconds


class LargeBodyFault(_Fault):
    """Applied, then answered with an envelope that spaces make `bytes` long: valid, but absurd."""

    kind: Literal["large_body"]
    bytes: Annotated[int, Field(ge=1024, le=1024**3)]
    apply: bool = True


class RedirectFault(_Fault):
    """A redirect to `location`."""

    kind: Literal["redirect"]
    location: HeaderValue
    status: Literal[301, 302, 303, 307, 308] = 307
    apply: bool = False


Fault: TypeAlias = Annotated[
    StatusFault
    | EnvelopeFault
    | GarbageFault
    | DropBeforeFault
    | DropAfterFault
    | ResetFault
    | HangFault
    | DelayFault
    | LateFault
    | DripHeadersFault
    | DripBodyFault
    | LargeBodyFault
    | RedirectFault,
    Field(discriminator="kind"),
]

KINDS = frozenset(get_args(model.model_fields["kind"].annotation)[0] for model in get_args(get_args(Fault)[0]))
"""Every kind of fault there is."""


@dataclass(slots=True, eq=False)  # two orders are never the same one, however alike
class Order:
    """A fault in the queue.

    Attributes:
        number: 1 for the first.
        fault: what to do.
        remaining: how many requests more it meets, None for any number.
        met: how many requests it has met.
        removed: set when it is removed, which ends the wait of requests that hang on it.
    """

    number: int
    fault: Fault
    remaining: int | None
    chance: random.Random = field(repr=False)
    met: int = 0
    removed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def view(self) -> dict[str, Any]:
        """The order as the control interface shows it."""
        shown = self.fault.model_dump(mode="json", exclude_unset=True)
        return {"id": self.number, **shown, "remaining": self.remaining, "met": self.met}


class FaultQueue:
    """Orders in the order they were given; a request meets the first that matches."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._given = 0

    def add(self, fault: Fault) -> Order:
        """Puts a fault at the end of the queue."""
        self._given += 1
        chance = random.Random(fault.seed)  # noqa: S311 - reproducible by its seed, protects nothing
        order = Order(self._given, fault, fault.times, chance)
        self._orders.append(order)
        return order

    def take(self) -> Order | None:
        """The order that the next request meets, if any."""
        for order in self._orders:
            if order.remaining == 0 or not _strikes(order):
                continue
            order.met += 1
            if order.remaining is not None:
                order.remaining -= 1
                # Requests still hang on a spent hang, and are let go by removing it: it stays.
                if order.remaining == 0 and not isinstance(order.fault, HangFault):
                    self._orders.remove(order)
            return order
        return None

    def remove(self, number: int | None = None) -> int:
        """Removes one order, or all of them, and returns how many there were."""
        gone = [order for order in self._orders if number in (None, order.number)]
        self._orders = [order for order in self._orders if order not in gone]
        for order in gone:
            order.removed.set()
        return len(gone)

    def view(self) -> list[dict[str, Any]]:
        """The orders as the control interface shows them."""
        return [order.view() for order in self._orders]


def _strikes(order: Order) -> bool:
    return order.fault.probability is None or order.chance.random() < order.fault.probability
