"""What an endpoint says of its limits in `RateLimit` headers, in each form that the IETF drafts had (pure).

The present form: `RateLimit-Policy: "default";q=100;w=10` and `RateLimit: "default";r=50;t=5`.
Before it: `RateLimit-Policy: 100;w=10` with `RateLimit: limit=100, remaining=50, reset=5`, or with three headers
`RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS: Final = (
    *("RateLimit", "RateLimit-Policy"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
)
"""The headers that are read."""

RATE_MAX: Final = 1_000_000.0
"""A stated limit above this, in requests a second, is not believed."""

SLOWEST_PACE_SECONDS: Final = 60
"""A policy that allows less than one request in this time counts a quota, and is no pace: evenly spread, it would stop
the fleet for long although most of the quota may be left."""

_CHARACTERS_MAX: Final = 1_000
_INTEGER = re.compile(r"[0-9]{1,9}")
_ITEM = re.compile(r'\s*(?:"[^"\\]{0,100}"|[A-Za-z*][A-Za-z0-9_\-.*]{0,100}|[0-9]{1,9})(?:\s*;[^,]*)?\s*')
_PARAMETER = re.compile(
    r'\s*([a-z*][a-z0-9_\-.*]{0,30})\s*(?:=\s*("[^"\\]{0,100}"|:[A-Za-z0-9+/=]{0,100}:|[^\s;",]{1,100}))?\s*'
)
_KEYED = re.compile(r"\s*(limit|remaining|reset)\s*=\s*([0-9]{1,9})\s*(?:;[^,]*)?")


class Stated(NamedTuple):
    """What the endpoint says of its limits.

    Attributes:
        rate: requests a second that it allows on the whole; 0 if it does not say.
        rest_seconds: how long it allows no further request; 0 if it does not say so.
        garbage: whether a header was there that cannot be read, or means nothing; then it says nothing.
    """

    rate: float = 0.0
    rest_seconds: float = 0.0
    garbage: bool = False


NOTHING: Final = Stated()


class _UnreadableError(ValueError):
    """A header is in none of the forms."""


def read_rate_headers(headers: Mapping[str, str], rest_max_seconds: float) -> Stated:
    """What these headers say; never raises.

    Args:
        headers: those of `HEADERS` that came, by these names.
        rest_max_seconds: a rest longer than this is not believed.
    """
    if not headers:
        return NOTHING
    if any(len(value) > _CHARACTERS_MAX or not value.isprintable() for value in headers.values()):
        return Stated(garbage=True)
    try:
        windows = _policies(headers)
        remaining, reset = _remaining(headers)
    except _UnreadableError:
        return Stated(garbage=True)
    paces = (quota / window for quota, window in windows if window <= quota * SLOWEST_PACE_SECONDS)
    rate = min(paces, default=0.0)
    rest = float(reset) if remaining == 0 and reset is not None else 0.0
    if rate > RATE_MAX or rest > rest_max_seconds or (windows and rest > max(window for _, window in windows)):
        return Stated(garbage=True)
    return Stated(rate, rest)


def _policies(headers: Mapping[str, str]) -> list[tuple[int, int]]:
    """Quota and window (seconds) of each policy that counts requests over a time."""
    found = []
    for name in ("RateLimit-Policy", "RateLimit-Limit"):
        for item in _items(headers.get(name, "")):
            head, parameters = _item(item)
            quota, window = parameters.get("q", head if _INTEGER.fullmatch(head) else None), parameters.get("w")
            if parameters.get("qu", '"requests"').strip('"') != "requests" or window is None:
                continue  # bytes, requests under way at once, or a quota without a time
            found.append((_integer(quota), _integer(window)))
    if any(quota == 0 or window == 0 for quota, window in found):
        raise _UnreadableError
    return found


def _remaining(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Requests that remain, and seconds until there are more; None where it is not said."""
    if "RateLimit" in headers:
        text = headers["RateLimit"]
        if _KEYED.match(text):
            named = dict(_keyed(each) for each in text.split(","))
            return named.get("remaining"), named.get("reset")
        said = [_item(item)[1] for item in _items(text)]
        spent = [_integer(each["t"]) for each in said if _integer(each.get("r")) == 0 and "t" in each]
        return (0, max(spent)) if spent else (None, None)
    remaining, reset = (headers.get(f"RateLimit-{name}", "").strip() or None for name in ("Remaining", "Reset"))
    return (
        None if remaining is None else _integer(remaining),
        None if reset is None else _integer(reset),
    )


def _keyed(text: str) -> tuple[str, int]:
    found = _KEYED.fullmatch(text)
    if found is None:
        raise _UnreadableError
    return found[1], int(found[2])


def _items(text: str) -> list[str]:
    """The items of a list."""
    items = text.split(",") if text.strip() else []
    if not all(_ITEM.fullmatch(item) for item in items):
        raise _UnreadableError
    return items


def _item(text: str) -> tuple[str, dict[str, str]]:
    """An item and its parameters."""
    head, *rest = text.split(";")
    parameters = {}
    for each in rest:
        found = _PARAMETER.fullmatch(each)
        if found is None:
            raise _UnreadableError
        parameters[found[1]] = found[2] or ""
    return head.strip(), parameters


def _integer(text: str | None) -> int:
    if text is None or not _INTEGER.fullmatch(text):
        raise _UnreadableError
    return int(text)
