"""The control API of the stand-in endpoint: its contacts, its history, and how it behaves.

All paths are under `/_stand-in/`, use JSON and need no key. Invalid input is answered with HTTP 400 and
`{"error": "<field>: <rule>"}`.
"""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from worker.standin.faults import KINDS, Fault
from worker.standin.settings import StandInSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from pydantic_core import ErrorDetails
    from starlette.requests import Request

    from worker.standin.stand_in import StandIn

CONTROL_PATH = "/_stand-in"

_ITEMS_PER_CHUNK = 5_000
_DIGITS_MAX = 18

_FAULT: TypeAdapter[Fault] = TypeAdapter(Fault)
_FAULTS: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])
_SETTINGS = TypeAdapter(StandInSettings)

Value = TypeVar("Value")


class ControlInputError(Exception):
    """The control input is invalid. The text is one line that names field and rule."""


def control_routes(stand_in: StandIn) -> list[Route]:
    """Returns the routes that control a stand-in endpoint."""
    control = _Control(stand_in)
    actions: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("GET", "health", control.health),
        ("GET", "contacts", control.contacts),
        ("GET", "counts", control.counts),
        ("GET", "requests", control.requests),
        ("GET", "applied", control.applied),
        ("DELETE", "history", control.clear_history),
        ("GET", "faults", control.faults),
        ("POST", "faults", control.order_faults),
        ("DELETE", "faults", control.remove_faults),
        ("GET", "settings", control.settings),
        ("POST", "settings", control.change_settings),
        ("POST", "reset", control.reset),
    ]
    return [
        Route(f"{CONTROL_PATH}/{name}", _refusing(action), methods=[method], name=f"{method} {name}")
        for method, name, action in actions
    ]


class _Control:
    """One handler for each path and method."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok", "now": self._stand_in.clock()})

    async def contacts(self, request: Request) -> Response:
        return _streamed(iter(self._stand_in.era.memory.pairs(request.query_params.get("owner"))))

    async def counts(self, _: Request) -> Response:
        return _json(self._stand_in.counts())

    async def requests(self, request: Request) -> Response:
        return _streamed(self._stand_in.era.memory.requests(_number(request, "since") or 0))

    async def applied(self, request: Request) -> Response:
        return _streamed(self._stand_in.era.memory.applied(_number(request, "since") or 0))

    async def clear_history(self, _: Request) -> Response:
        self._stand_in.era.memory.clear_history()
        return _json({})

    async def faults(self, _: Request) -> Response:
        return _json({"faults": self._stand_in.era.faults.view()})

    async def order_faults(self, request: Request) -> Response:
        parsed = await _parsed(request)
        ordered = _valid(_FAULTS, parsed) if isinstance(parsed, list) else [_valid(_FAULT, parsed)]
        orders = [self._stand_in.era.faults.add(fault) for fault in ordered]
        return _json({"faults": [order.view() for order in orders]}, status=201)

    async def remove_faults(self, request: Request) -> Response:
        number = _number(request, "id")
        return _json({"removed": self._stand_in.era.faults.remove(number)})

    async def settings(self, _: Request) -> Response:
        return _json(self._stand_in.settings.model_dump(mode="json"))

    async def change_settings(self, request: Request) -> Response:
        changes = _valid(_SETTINGS, await _parsed(request))
        self._stand_in.configure(self._stand_in.settings.changed_by(changes))
        return await self.settings(request)

    async def reset(self, _: Request) -> Response:
        self._stand_in.reset()
        return _json({})


def _refusing(action: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Wraps a handler: invalid input is answered with HTTP 400."""

    async def endpoint(request: Request) -> Response:
        try:
            return await action(request)
        except ControlInputError as error:
            return _json({"error": str(error)}, status=400)

    return endpoint


def _valid(adapter: TypeAdapter[Value], parsed: object) -> Value:
    try:
        return adapter.validate_python(parsed)
    except ValidationError as error:
        lines = [_line(fault) for fault in error.errors(include_url=False, include_input=False)]
        raise ControlInputError("; ".join(lines)) from None


def _line(fault: ErrorDetails) -> str:
    """Returns one line that names field and rule. In a list of faults, the index in the list precedes the field."""
    # Between the index and the field, pydantic puts the kind by which it chose the model: it is not a field.
    place = list(takewhile(lambda step: isinstance(step, int), fault["loc"]))
    field = list(fault["loc"][len(place) :])
    if field[:1] and field[0] in KINDS:
        del field[0]
    if fault["type"].startswith("union_tag"):
        field.append("kind")
    return ".".join(map(str, [*place, *field] or ["body"])) + ": " + fault["msg"].removeprefix("Value error, ")


async def _parsed(request: Request) -> object:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise ControlInputError("body: must be valid JSON") from None


def _number(request: Request, name: str) -> int | None:
    """Returns a number from the query; None if it is missing."""
    value = request.query_params.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= _DIGITS_MAX):
        raise ControlInputError(f"{name}: must be a number of 0 or more, in decimal digits")
    return int(value)


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _streamed(items: Iterator[object]) -> Response:
    """Streams a JSON list in chunks, so that other requests are served while a long list is sent."""

    async def chunks() -> AsyncIterator[bytes]:
        opening = b"["
        while part := list(islice(items, _ITEMS_PER_CHUNK)):
            yield opening + orjson.dumps(part)[1:-1]
            opening = b","
        yield b"[]" if opening == b"[" else b"]"

    return StreamingResponse(chunks(), media_type="application/json")
