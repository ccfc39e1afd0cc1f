"""Whether the fleet makes progress, or a restart of the workers would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from worker.admin.obstacles import gate_words, obstacles
from worker.admin.status import TOTALS
from worker.core.numbers import are, many
from worker.core.times import in_words, iso_utc
from worker.core.timing import TICKER_LEASE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.admin.status import Status
    from worker.config.settings import WorkerSettings
    from worker.core.gate import GateSnapshot

WATCH_SECONDS: Final = 3.0
"""How long an old backlog is watched for progress: longer than a ticker sleeps, and than most requests take."""

_SLOW_A_SECOND: Final = 2 / WATCH_SECONDS
"""At a lower rate nothing may move for as long as that, although workers send as fast as they may. Without workers the
time of the next request is soon over."""

_POLL_SECONDS: Final = 0.2

Reason = Literal[
    "idle",
    "progress",
    "endpoint_backing_off",
    "endpoint_held",
    "paused",
    "wrong_type_partitions",
    "closed_partitions",
    "slots_open",
    "dead_letters_full",
    "replicas_absent",
    "wrong_type_keys",
    "redis_away",
    "redis_partly_away",
    "redis_refuses",
    "no_progress",
]

_UNHEALTHY: Final = frozenset({"redis_refuses", "wrong_type_keys", "no_progress"})

_OF_PARTITIONS: Final[tuple[Reason, ...]] = (
    "closed_partitions",
    "wrong_type_partitions",
    "slots_open",
    "dead_letters_full",
    "replicas_absent",
)
"""What concerns some partitions, or the inbox, while all others go on."""

_ESSENTIAL: Final = (":config", ":gate", ":ticker")
"""Ends of the fleet's keys without which no worker delivers anything."""

_OUTSIDE: Final = frozenset(
    {"endpoint_backing_off", "endpoint_held", "paused", "redis_away", "redis_partly_away", *_OF_PARTITIONS}
)


@dataclass(frozen=True, slots=True)
class Health:
    """The health of the fleet.

    Attributes:
        reason: why the fleet is healthy; `no_progress`, `redis_refuses` and `wrong_type_keys` mean that it is not.
        message: the same in words, without secrets or ids.
        oldest_seconds: how long the oldest unconfirmed change has waited; None if nothing waits or Redis does not say.
    """

    reason: Reason
    message: str
    oldest_seconds: float | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is progress, or what is in the way passes by itself."""
        return self.reason not in _UNHEALTHY

    @property
    def outside(self) -> bool:
        """Whether the reason is outside the workers: they are fine, but something they need is not."""
        return self.reason in _OUTSIDE

    def as_json(self) -> dict[str, Any]:
        """The fields of ``contact-sync health --json`` except the bound."""
        return {
            "healthy": self.healthy,
            "reason": self.reason,
            "outside": self.outside,
            "message": self.message,
            "oldest_seconds": self.oldest_seconds,
        }


def default_bound_seconds(settings: WorkerSettings) -> float:
    """The longest time that a change waits in a healthy fleet: 30 s with the default settings.

    In the worst case the change lingers, its worker dies, the lease expires, the ticker's lease expires too because it
    ran in that worker, and then the request takes until its timeout.
    """
    return settings.linger_seconds + settings.lease_seconds + TICKER_LEASE_SECONDS + settings.request_timeout_seconds


def assess(
    read: Callable[[], Status],
    *,
    bound_seconds: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> Health:
    """Reads the status once if that is enough; otherwise watches the backlog, which may be old but moving.

    Args:
        read: reads the status of the namespace.
        bound_seconds: if the oldest change is younger than this, the fleet makes progress.
        monotonic: a clock, in seconds.
        sleep: waits for this many seconds.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    ends = monotonic() + WATCH_SECONDS
    first = last = read()
    while True:
        found = _settled(last, bound_seconds)
        if found is not None:
            return _named(found, last)
        waited = in_words(last.oldest_seconds or 0.0)
        if _moved(first, last):
            moves = f"the oldest change has waited for {waited}, but changes move"
            return _named(Health("progress", moves, last.oldest_seconds), last)
        if monotonic() >= ends:
            return Health("no_progress", _stands(last, waited), last.oldest_seconds)
        sleep(_POLL_SECONDS)
        last = read()


def _named(health: Health, found: Status) -> Health:
    """The same, but named by the servers that are away: what they hold is not known to move."""
    if not found.away_words():
        return health
    return Health("redis_partly_away", f"{found.away_words()}; of the others: {health.message}", health.oldest_seconds)


def _settled(found: Status, bound_seconds: float) -> Health | None:  # noqa: PLR0911 - one return for each finding
    """The health if one status is enough to tell, else None."""
    oldest = found.oldest_seconds
    if oldest is None:
        only = f"nothing waits but {many(found.parked, 'parked pair')}: contact-sync parked list"
        return Health("idle", only if found.parked else "nothing waits")
    waited = f"the oldest change has waited for {in_words(oldest)}"
    if oldest < bound_seconds:
        return Health("progress", f"{waited}, less than {in_words(bound_seconds)}", oldest)
    if found.in_flight:
        # Only progress renews a lease: a worker that hangs loses it, and a dead one gets no other.
        return Health(
            "progress", f"{waited}, but {many(found.in_flight, 'partition')} {are(found.in_flight)} worked on", oldest
        )
    every = {each.name: each for each in obstacles(found)}
    if any(key.endswith(_ESSENTIAL) for key in found.wrong_type_keys):
        return Health("wrong_type_keys", f"{every['wrong_type_keys'].message}; {waited}", oldest)
    gate = found.gate
    if gate.state != "ok" and not _overdue(gate, bound_seconds):
        held: Reason = "paused" if gate.paused_ms else "endpoint_held"
        reason: Reason = held if gate.state == "held" else "endpoint_backing_off"
        return Health(reason, f"{_gate(gate)}; {waited}", oldest)
    if name := _stuck_partitions(found, bound_seconds):
        return Health(name, f"{every[name].message}; {waited}", oldest)
    if gate.rate and gate.rate < _SLOW_A_SECOND and gate.wait_ms:
        goes = f"{gate.rate:g} requests a second let the next one out in {in_words(gate.wait_ms / 1000)}"
        return Health("progress", f"{waited}, and {goes}", oldest)
    return None


def _stuck_partitions(found: Status, bound_seconds: float) -> Reason | None:
    """What keeps some partitions, or the inbox, from going on, if all others are young or empty."""
    stuck = {*found.wrong_type_partitions, *found.full_partitions, *found.open_partitions}
    others = (part.oldest_ms for p, part in enumerate(found.parts) if p not in stuck and part.oldest_ms is not None)
    oldest = found.seconds_since(min(others, default=None))
    if oldest is not None and oldest >= bound_seconds:
        return None
    names = {each.name for each in obstacles(found)}
    return next((name for name in _OF_PARTITIONS if name in names), None)


def _overdue(gate: GateSnapshot, bound_seconds: float) -> bool:
    """Whether a request could have been sent long ago but was not: that is not the endpoint's fault."""
    return not gate.wait_ms and gate.now_ms - gate.not_before_ms >= 1000 * bound_seconds


def _moved(before: Status, after: Status) -> bool:
    """Whether a worker did anything in between. Producers move the backlog too, but that is not progress."""
    return _done(before) != _done(after)


def _done(found: Status) -> list[int]:
    totals = found.totals
    return [totals["events"] - found.backlog_events, *(totals[name] for name in TOTALS if name != "events")]


def _stands(found: Status, waited: str) -> str:
    gate = "the endpoint is ok" if found.gate.state == "ok" else f"{_gate(found.gate)}, and nobody tries it"
    ours = {"paused", "endpoint_held", "endpoint_backing_off"}
    beside = "".join(f"; {each.message}" for each in obstacles(found) if each.name not in ours)
    return f"the oldest change has waited for {waited} and nothing moved for {WATCH_SECONDS:g} s, though {gate}{beside}"


def _gate(gate: GateSnapshot) -> str:
    if gate.paused_ms:
        return f"an operator has paused deliveries, since {iso_utc(gate.paused_ms)}: contact-sync resume"
    return gate_words(gate)
