"""Faults on demand: one model for each kind, and their queue.

An order names a kind and its parameters. It may also say how many requests it affects (`times`; without it, until it is
removed), and how likely it affects one (`probability`, with a `seed`).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from worker.standin.settings import Seconds  # noqa: TC001 - pydantic reads it when the models are made

HeaderValue: TypeAlias = Annotated[str, Field(pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$")]
"""A valid header value: printable ASCII that neither begins nor ends with a space."""

FinalStatus: TypeAlias = Annotated[int, Field(ge=200, le=599)]


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0


class StatusFault(_Fault):
    """An HTTP status with an error envelope or, if `garbage` is set, with a body that is not JSON."""

    kind: Literal["status"]
    status: FinalStatus
    code: str = ""
    field: str = ""
    message: str = ""
    retry_after: HeaderValue | None = None
    garbage: bool = False
    apply: bool = False


class EnvelopeFault(_Fault):
    """HTTP 200 with an envelope that reports an error."""

    kind: Literal["envelope"]
    code: str
    field: str = ""
    message: str = ""
    status: FinalStatus = 400
    apply: bool = False


class GarbageFault(_Fault):
    """HTTP 200 with a body that is not JSON."""

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
    """No answer until the order is removed; then the request is applied, unless it was before, and answered."""

    kind: Literal["hang"]
    apply: bool = False


class DelayFault(_Fault):
    """The request waits, then is applied and answered, even if its client has gone meanwhile."""

    kind: Literal["delay"]
    seconds: Seconds


class LateFault(_Fault):
    """No answer, and the request is applied later; the connection is closed now, or stays open if `hold` is set."""

    kind: Literal["late"]
    seconds: Seconds
    hold: bool = False


class DripHeadersFault(_Fault):
    """Applied, then answered one byte every `seconds`, headers included; the connection is closed at the end."""

    kind: Literal["drip_headers"]
    seconds: Seconds


class DripBodyFault(_Fault):
    """Applied, then answered: the headers at once, the body one byte every `seconds`."""

    kind: Literal["drip_body"]
    seconds: Seconds


class LargeBodyFault(_Fault):
    """Applied, then answered with an envelope that is padded with spaces to `bytes`: valid, but absurdly long."""

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
"""Every kind of fault."""


@dataclass(slots=True, eq=False)  # orders with equal fields are still different orders
class Order:
    """A fault in the queue.

    Attributes:
        number: 1 for the first.
        fault: what to do.
        remaining: how many more requests it affects; None for no limit.
        met: how many requests it has affected.
        removed: set when it is removed; this releases the requests that hang on it.
    """

    number: int
    fault: Fault
    remaining: int | None
    chance: random.Random = field(repr=False)
    met: int = 0
    removed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def view(self) -> dict[str, Any]:
        """Returns the order as the control API shows it."""
        shown = self.fault.model_dump(mode="json", exclude_unset=True)
        return {"id": self.number, **shown, "remaining": self.remaining, "met": self.met}


class FaultQueue:
    """A queue of orders; the first that applies affects the request."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._given = 0

    def add(self, fault: Fault) -> Order:
        """Adds a fault at the end of the queue."""
        self._given += 1
        chance = random.Random(fault.seed)  # noqa: S311 - reproducible by its seed, protects nothing
        order = Order(self._given, fault, fault.times, chance)
        self._orders.append(order)
        return order

    def take(self) -> Order | None:
        """Returns the order that affects the next request, if any."""
        for order in self._orders:
            if order.remaining == 0 or not _strikes(order):
                continue
            order.met += 1
            if order.remaining is not None:
                order.remaining -= 1
                # Requests still hang on a used-up hang, and only its removal releases them: it stays.
                if order.remaining == 0 and not isinstance(order.fault, HangFault):
                    self._orders.remove(order)
            return order
        return None

    def remove(self, number: int | None = None) -> int:
        """Removes one order or all orders, and returns how many were removed."""
        gone = [order for order in self._orders if number in (None, order.number)]
        self._orders = [order for order in self._orders if order not in gone]
        for order in gone:
            order.removed.set()
        return len(gone)

    def view(self) -> list[dict[str, Any]]:
        """Returns the orders as the control API shows them."""
        return [order.view() for order in self._orders]


def _strikes(order: Order) -> bool:
    return order.fault.probability is None or order.chance.random() < order.fault.probability
