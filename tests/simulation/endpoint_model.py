"""The endpoint in memory: section 1 of contract.md, and everything that can go wrong on the way to it and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import orjson

from worker.core.outcome import Answer, NoAnswer

if TYPE_CHECKING:
    from producers.contract.change import Op
    from tests.proof.history import Outcome, Pair, Places, Record
    from tests.simulation.chance import Chance

Acts = Literal["at_once", "never", "any"]
"""When a request takes effect: before it is answered, not at all, or any of these and later than anybody waits."""


class Weather(NamedTuple):
    """What a request meets.

    Attributes:
        name: for stories.
        acts: when it takes effect.
        answer: what comes back; None where it is a confirmation.
        patience: it comes back at once, after a while, or only at the deadline: 0, 1, 2.
    """

    name: str
    acts: Acts
    answer: Answer | NoAnswer | None
    patience: int = 0


def _envelope(status: int, code: str = "", field_number: str = "") -> bytes:
    error = {"code": code, "message": "", "field": field_number}
    return orjson.dumps({"status": status, "error": error, "data": {}})


@cache
def _confirmation(inserted: int, deleted: int) -> Answer:
    data = {"countInserted": inserted, "countDeleted": deleted}
    body = {"status": 200, "error": {"code": "", "message": "", "field": ""}, "data": data}
    return Answer(200, None, orjson.dumps(body))


OK: Final = Weather("confirmed", "at_once", None)
SLOW: Final = Weather("confirmed slowly", "at_once", None, 1)
REFUSED: Final = (
    Answer(400, None, _envelope(400, "40002", "102")),
    Answer(422, None, _envelope(422)),
    Answer(200, None, _envelope(400, "40002", "103")),
)
UNKNOWN: Final = (
    Answer(403, None, _envelope(403, "40301")),
    Answer(404, None, _envelope(404, "40401")),
    Answer(500, None, _envelope(500, "99999")),
    Answer(400, None, _envelope(400, "40002", "105")),
)
TOO_LARGE: Final = (Answer(413, None, b""), Answer(400, None, _envelope(400, "40002", "101")))

TRANSIENT: Final = (
    Weather("busy", "never", Answer(503, None, _envelope(500, "50001"))),
    Weather("told to slow down", "never", Answer(429, "1", _envelope(429))),
    Weather("internal error in a 200", "never", Answer(200, None, _envelope(500, "50001"))),
    Weather("connection refused", "never", NoAnswer(sent=False, why="no connection")),
)
LIMITED: Final = (
    Weather("over its limit", "never", Answer(429, None, _envelope(429))),
    Weather("over its limit, wait a second", "never", Answer(429, "1", _envelope(429))),
)
AMBIGUOUS: Final = (
    Weather("no answer before the deadline", "any", NoAnswer(sent=True, why="no answer"), 2),
    Weather("connection reset", "any", NoAnswer(sent=True, why="reset")),
    Weather("500 without an envelope", "any", Answer(500, None, b"<html>")),
    Weather("502 in an envelope", "any", Answer(502, None, _envelope(502, "50001"))),
    Weather("200 without an envelope", "any", Answer(200, None, b"{}")),
    Weather("200 cut short", "any", Answer(200, None, b"", readable=False), 1),
    Weather("202", "any", Answer(202, None, _envelope(202))),
)
HELD: Final = (
    Weather("key refused", "never", Answer(401, None, _envelope(401, "40103"))),
    Weather("key refused in a 200", "never", Answer(200, None, _envelope(400, "40001"))),
    Weather("not found", "never", Answer(404, None, b"")),
    Weather("a proxy cannot process it", "never", Answer(422, None, b"no")),
    Weather("redirect", "never", Answer(302, None, b"")),
)
CLIMATES: Final[tuple[tuple[Weather, ...], ...]] = (
    (OK,) * 6 + (SLOW,),
    (OK, SLOW, *AMBIGUOUS),
    (OK, *TRANSIENT, *AMBIGUOUS[:2]),
    TRANSIENT,
    AMBIGUOUS,
    (OK, *HELD),
    HELD,
    (OK, SLOW, *TRANSIENT, *AMBIGUOUS, *HELD),
)
"""What may come together for a while; the first is the plainest."""


@dataclass(slots=True, eq=False)
class Request:
    """One request that is under way or was: what the oracle is told of it, and when it may take effect."""

    number: int
    records: tuple[Record, ...]
    built_ms: int
    begun_ms: int
    whole: bool
    ended_ms: int | None = None
    outcome: Outcome | None = "failed"
    applied: int | None = None
    read_from: dict[int, Places] = field(default_factory=dict)
    settled: dict[int, Places] = field(default_factory=dict)
    placed_us: int | None = None
    beyond: bool = False
    suppressed: frozenset[str] = frozenset()
    counts: tuple[int, int] = (0, 0)


class EndpointModel:
    """What it holds, and how it is today.

    Attributes:
        contacts: every pair that is a contact.
        poison: pairs that it refuses.
        unknown: pairs that it refuses with a code that no row of the contract names.
        most: most records that it takes in one request.
        climate: what a request may meet.
        rate: requests a second that it allows, two more at once; 0 for any number.
    """

    def __init__(self) -> None:
        self.contacts: set[Pair] = set()
        self.poison: set[Pair] = set()
        self.unknown: set[Pair] = set()
        self.most = 1 << 30
        self.climate = CLIMATES[0]
        self.rate = 0.0
        self._applied = 0
        self._due_us = 0.0

    def meet(self, request: Request, chance: Chance, mono_us: int) -> Weather:
        """What becomes of a request that arrives now (monotonic)."""
        if self.rate > 0:
            if self._due_us > mono_us + 2_000_000 / self.rate:
                return chance.one_of(LIMITED)
            self._due_us = max(self._due_us, mono_us) + 1_000_000 / self.rate
        weather = chance.one_of(self.climate)
        if weather.answer is not None:
            return weather
        if _any_of(self.poison, request):
            answer = chance.one_of(REFUSED)
            request.outcome = "refused" if len(request.records) == 1 else "failed"
            return Weather("a record refused", "never", answer)
        if self.refuses(request):
            return Weather("a record refused with an unknown code", "never", chance.one_of(UNKNOWN))
        if len(request.records) > self.most:
            return Weather("too large", "never", chance.one_of(TOO_LARGE))
        return weather

    def refuses(self, request: Request) -> bool:
        """Whether it refuses one of its records."""
        return _any_of(self.poison, request) or _any_of(self.unknown, request)

    def apply(self, request: Request) -> None:
        """Lets it take effect: deletions last, whatever their place in it."""
        if self.refuses(request):
            return
        self._applied += 1
        request.applied = self._applied
        before = len(self.contacts)
        self.contacts.update((owner, contact) for owner, contact, op in request.records if op == "upsert")
        between = len(self.contacts)
        self.contacts.difference_update((owner, contact) for owner, contact, op in request.records if op == "delete")
        request.counts = between - before, between - len(self.contacts)


def _any_of(pairs: set[Pair], request: Request) -> bool:
    return bool(pairs) and any((owner, contact) in pairs for owner, contact, _ in request.records)


def confirmation(request: Request) -> Answer:
    """The answer to a request that took effect."""
    return _confirmation(*request.counts)


def records_of(body: bytes) -> tuple[Record, ...]:
    """The records of a body."""
    records: list[Record] = []
    for each in orjson.loads(body)["contacts"]:
        op: Op = "delete" if each.get("isDeleted") else "upsert"
        records.append((each["ownerXCUserID"], each["contactXCUserID"], op))
    return tuple(records)
