"""Which fault strikes when: a plan that a seed decides, and nothing else (pure).

Kinds are drawn like cards: each comes once before any comes again, in an order of its own each time. So a short soak
sees many kinds, and a long one sees each of them about as often. At times two of different sorts strike at once.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.soak.homes import On

TOGETHER: Final = 0.2
"""How often two faults strike at once."""

STAGGER_SECONDS: Final = (0.1, 1.5)
"""How long after the first of two faults the second one strikes: also while what the first one ended is starting."""

CALM_SECONDS: Final = (0.3, 1.5)
"""How long it is calm between the recovery from one fault and the next."""


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        name: as the report has it.
        sort: what it strikes; two of one sort never strike at once.
        shortest, longest: how many seconds it lasts; both 0 where it is over at once.
        on: the homes of the log in which there is such a thing.
    """

    name: str
    sort: str
    shortest: float
    longest: float
    on: tuple[On, ...] = ("redis", "sentinel", "cluster")


class Fault(NamedTuple):
    """One fault of a plan.

    Attributes:
        kind: what happens.
        seconds: how long.
        seed: of what is left to chance when it strikes, such as which worker it is.
    """

    kind: Kind
    seconds: float
    seed: int


class Step(NamedTuple):
    """Faults that strike together, the first one first, and the calm after the recovery from them.

    Attributes:
        faults: one or two.
        stagger_seconds: how long after the first one the second one strikes.
        calm_seconds: how long it is calm afterwards.
    """

    faults: tuple[Fault, ...]
    stagger_seconds: float
    calm_seconds: float


_ONE: Final[tuple[On, ...]] = ("redis",)
_OWN_BROKER: Final[tuple[On, ...]] = ("redis", "cluster")
_NODES: Final[tuple[On, ...]] = ("sentinel", "cluster")
_SENTINEL: Final[tuple[On, ...]] = ("sentinel",)
_CLUSTER: Final[tuple[On, ...]] = ("cluster",)

# Nothing may act later than a request's deadline and late_seconds (contract.md, section 4). So a fault that holds a
# request back and lets it act afterwards lasts less than that.
KINDS: Final = (
    Kind("worker killed", "workers", 0, 0),
    Kind("all workers killed", "workers", 0, 0),
    Kind("prefork child killed", "workers", 0, 0),
    Kind("worker paused", "workers", 4.0, 6.0),
    Kind("all workers but one paused", "workers", 4.0, 6.0),
    Kind("prefork child paused", "workers", 4.0, 6.0),
    Kind("rolling restart", "workers", 0, 0),
    Kind("worker of the previous release", "workers", 8.0, 12.0, _ONE),
    Kind("all workers of the previous release", "workers", 14.0, 18.0, _ONE),
    Kind("producers of the previous release", "producers", 2.0, 6.0, _ONE),
    Kind("redis killed", "redis", 0.5, 3.0, _ONE),
    Kind("redis paused", "redis", 2.5, 5.0, _ONE),
    Kind("redis read-only", "redis", 1.0, 4.0, _ONE),
    Kind("redis without replicas", "redis", 1.0, 4.0, _ONE),
    Kind("redis full", "redis", 2.0, 6.0, _ONE),
    Kind("scripts flushed", "redis", 0, 0),
    Kind("broker flushed", "redis", 0, 0),
    Kind("all dead letters redriven", "operator", 0, 0),
    Kind("bulk import", "import", 0, 0),
    Kind("an owner erased", "erasure", 0, 0),
    Kind("a contact erased", "erasure", 0, 0),
    Kind("somebody erased while workers are killed", "erasure", 3.0, 6.0),
    Kind("somebody erased by two at once", "erasure", 0, 0),
    Kind("an erasure killed and called again", "erasure", 0.5, 3.0),
    Kind("log paused", "log", 1.0, 5.0, _ONE),
    Kind("log reset", "log", 0, 0, _ONE),
    Kind("log refused", "log", 1.0, 4.0, _ONE),
    Kind("log loses replies", "log", 1.0, 2.0, _ONE),
    Kind("broker paused", "broker", 1.0, 5.0, _OWN_BROKER),
    Kind("broker reset", "broker", 0, 0, _OWN_BROKER),
    Kind("broker refused", "broker", 1.0, 4.0, _OWN_BROKER),
    Kind("broker loses replies", "broker", 1.0, 2.0, _OWN_BROKER),
    Kind("endpoint refused", "endpoint", 1.0, 4.0),
    Kind("endpoint paused", "endpoint", 1.0, 3.5),
    Kind("endpoint reset", "endpoint", 0, 0),
    Kind("endpoint drops before", "endpoint", 1.0, 3.0),
    Kind("endpoint drops after", "endpoint", 1.0, 3.0),
    Kind("endpoint resets after", "endpoint", 1.0, 3.0),
    Kind("endpoint hangs", "endpoint", 2.5, 4.5),
    Kind("endpoint hangs after", "endpoint", 2.5, 4.5),
    Kind("endpoint acts late", "endpoint", 1.0, 3.0),
    Kind("endpoint slow", "endpoint", 2.0, 5.0),
    Kind("endpoint drips", "endpoint", 2.0, 4.0),
    Kind("endpoint 503", "endpoint", 1.0, 5.0),
    Kind("endpoint 500 after", "endpoint", 1.0, 3.0),
    Kind("endpoint 502 after", "endpoint", 1.0, 3.0),
    Kind("endpoint 429", "endpoint", 1.0, 4.0),
    Kind("endpoint 50001", "endpoint", 1.0, 3.0),
    Kind("endpoint 404", "endpoint", 1.0, 3.0),
    Kind("endpoint garbage", "endpoint", 1.0, 3.0),
    Kind("endpoint garbage after", "endpoint", 1.0, 3.0),
    Kind("endpoint absurdly long answer", "endpoint", 1.0, 2.0),
    Kind("endpoint redirects", "endpoint", 1.0, 3.0),
    Kind("endpoint flaky", "endpoint", 3.0, 8.0),
    Kind("endpoint takes few", "endpoint", 2.0, 5.0),
    Kind("endpoint limits rate", "endpoint", 2.0, 5.0),
    Kind("endpoint changes its limit", "endpoint", 3.0, 8.0),
    Kind("endpoint refuses records", "endpoint", 2.0, 5.0),
    Kind("endpoint refuses with unknown codes", "endpoint", 2.0, 5.0),
    Kind("all parked pairs retried", "operator", 0, 0),
    Kind("credentials changed", "endpoint", 1.0, 4.0),
    Kind("credentials wrong", "endpoint", 1.0, 4.0),
    # A node is taken for down after 2 s.
    Kind("master killed", "nodes", 3.0, 7.0, _NODES),
    Kind("master killed and back at once", "nodes", 0, 0, _NODES),
    Kind("master hung", "nodes", 3.5, 6.0, _NODES),
    Kind("master hung shortly", "nodes", 0.2, 0.6, _NODES),
    Kind("replica killed", "nodes", 1.0, 4.0, _NODES),
    Kind("replica hung", "nodes", 1.0, 4.0, _NODES),
    Kind("master dies while its replicas are behind", "nodes", 3.0, 5.0, _NODES),
    Kind("planned failover", "nodes", 0, 0, _NODES),
    Kind("master cut off", "nodes", 1.0, 5.0, _NODES),
    Kind("master's connections held", "nodes", 1.0, 4.0, _NODES),
    Kind("master's connections reset", "nodes", 0, 0, _NODES),
    Kind("all connections to all nodes reset", "nodes", 0, 0, _NODES),
    Kind("master loses replies", "nodes", 1.0, 2.0, _NODES),
    Kind("master full", "nodes", 2.0, 5.0, _NODES),
    Kind("master without replicas", "nodes", 1.0, 4.0, _NODES),
    Kind("all nodes killed", "nodes", 0.5, 2.0, _NODES),
    Kind("all nodes hung", "nodes", 1.0, 3.0, _NODES),
    Kind("failover by force", "nodes", 0, 0, _CLUSTER),
    Kind("failover by takeover", "nodes", 0, 0, _CLUSTER),
    Kind("two masters killed", "nodes", 1.0, 4.0, _CLUSTER),
    Kind("gate's node killed", "nodes", 3.0, 6.0, _CLUSTER),
    Kind("gate's node hung", "nodes", 3.0, 6.0, _CLUSTER),
    Kind("configuration's node killed", "nodes", 3.0, 6.0, _CLUSTER),
    Kind("slots moved", "nodes", 0, 0, _CLUSTER),
    Kind("slot left open", "nodes", 2.0, 6.0, _CLUSTER),
    Kind("slot left open with half of its keys moved", "nodes", 2.0, 6.0, _CLUSTER),
    Kind("gate's slot moved", "nodes", 0, 0, _CLUSTER),
    Kind("configuration's slot moved", "nodes", 0, 0, _CLUSTER),
    Kind("sentinel killed", "nodes", 2.0, 5.0, _SENTINEL),
    Kind("sentinel hung", "nodes", 2.0, 5.0, _SENTINEL),
    Kind("two sentinels hung", "nodes", 2.0, 5.0, _SENTINEL),
    Kind("all sentinels killed", "nodes", 2.0, 5.0, _SENTINEL),
    Kind("master killed without a quorum of sentinels", "nodes", 1.0, 4.0, _SENTINEL),
)


PREVIOUS: Final = tuple(kind.name for kind in KINDS if kind.name.endswith("of the previous release"))
"""The kinds that need the project's history."""


OF_NODES: Final = tuple(kind.name for kind in KINDS if kind.sort == "nodes")
"""The kinds after which servers must find each other again."""


def plan(seed: int, only: Sequence[str] = (), on: On = "redis") -> Iterator[Step]:
    """Step after step, without an end; the same seed, the same steps.

    Args:
        seed: decides everything.
        only: names of the kinds that may strike; all of them if empty.
        on: where the log lives.
    """
    draw = random.Random(seed)
    kinds = [kind for kind in KINDS if on in kind.on and (not only or kind.name in only)]
    pile: list[Kind] = []
    while True:
        if not pile:
            pile = draw.sample(kinds, len(kinds))
        first = pile.pop()
        others = [kind for kind in pile if kind.sort != first.sort]
        struck = [first]
        if others and draw.random() < TOGETHER:
            struck.append(others[0])
            pile.remove(others[0])
        faults = tuple(_fault(kind, draw) for kind in struck)
        yield Step(faults, draw.uniform(*STAGGER_SECONDS), draw.uniform(*CALM_SECONDS))


def _fault(kind: Kind, draw: random.Random) -> Fault:
    return Fault(kind, draw.uniform(kind.shortest, kind.longest), draw.randrange(1 << 32))
