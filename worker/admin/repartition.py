"""Changes the number of partitions of an empty log while deliveries are paused; can be run again after a crash.

While the number changes, every log is closed: a string replaces the stream, so that no producer, in any language, can
append where nobody would read. Remembered outcomes move to the new partitions of their owners.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from producers.contract.change import partition_of
from producers.contract.errors import ContactSyncError, TooOld, UnknownLogFormat
from producers.contract.partitions import LOG_FORMAT, MAX_PARTITIONS
from worker.core.entry import split_pair
from worker.core.lease import UNTOLD
from worker.store import scripts
from worker.store.agreed import CLOSED_BEGINS, closed_text
from worker.store.client import command, round_trip, transaction
from worker.store.gate import Gate
from worker.store.namespace import Namespace
from worker.store.replies import all_checked, checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

    from producers.contract.keys import Keys
    from producers.nodes.trip import Replicas

_PAGE: Final = 1_000
_ADDED: Final = "totals_of"
"""Field of the first partition: whose counters were added to its own last."""

_CLOSED_AT: Final = "closed_at"
"""Field of the configuration: when every log was closed (Unix ms), so that what was begun can only be finished."""

_NOTED: Final = "fleet_partitions"
_OF_THE_STREAM: Final = ("position", "bulk_position", "strayed", "gone", _NOTED, *UNTOLD)
"""Fields of a partition about the stream that was there; claim.lua, trimmed.lua and beat.lua say what they are."""

_AT_ONCE: Final = 256  # partitions in one round trip

_IN_THE_WAY: Final = {
    b"wrong-type": "a key has the wrong type: contact-sync status names it; rename or remove it",
    b"lease": "a worker holds it: stop the workers, and wait until its lease expires",
    b"events": "its log has entries: stop the producers, contact-sync resume, contact-sync drain",
    b"pending": "pairs are waiting in it: contact-sync resume, contact-sync drain",
    b"late": "unanswered requests may still change its pairs: contact-sync resume, and wait",
    b"parked": "pairs are parked in it: contact-sync parked retry or bury",
    b"dead": "it has dead letters: contact-sync dead-letters redrive or purge",
}


class NotNow(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """The number of partitions cannot be changed now; nothing was changed."""


class _Recorded(NamedTuple):
    """The recorded number, whether a change of it was begun before, and when that had closed every log, 0 if not."""

    partitions: int
    begun: bool
    closed_ms: int


class Moved(NamedTuple):
    """The number of partitions before and after, and the number of remembered pairs that moved."""

    before: int
    after: int
    pairs: int


def repartition(client: redis.Redis, keys: Keys, to: int, wait: Replicas = 0) -> Moved:
    """Changes the number of partitions, or finishes a change that was interrupted.

    Args:
        client: Redis.
        keys: the namespace's keys.
        to: the new number.
        wait: how many replicas must have each step before the next one begins.

    Raises:
        NotReplicatedError: too few replicas have a step; it can be run again.
        NotNow: something prevents it; the message says what, and what to do.
        TooOld, UnknownLogFormat: a newer version wrote the log, or its recorded configuration cannot be read.
        redis.RedisError: Redis does not answer, or refuses. Nothing is appended or delivered until this is run again.
    """
    before, begun, closed_ms = _recorded(client, keys, to, wait)
    if begun:  # a failover may have lost the pause, and `contact-sync pause` refuses until this is finished
        Gate(Namespace(client, keys, before)).pause(wait)
    _check_nobody_is_working(client, keys, before)
    # Once pairs have moved there is no way back: workers of the former number would not find what is remembered. A log
    # that was opened since may have entries of a producer that was not stopped, and they stay.
    if not closed_ms:
        _check_nothing_in_the_way(client, keys, before, begun=begun)
        all_checked(round_trip(client, [("HSET", keys.config, "repartitioning", str(to))], wait))
        _close(client, keys, before, closed_text(to), wait)
        closed_ms = time_ms(command(client, "TIME"))
    all_checked(round_trip(client, [("HSET", keys.config, _CLOSED_AT, str(closed_ms))], wait))
    pairs = sum(_move_pairs(client, keys, p, to, wait) for p in range(before))
    for p in range(to, before):
        _move_totals(client, keys, p, wait)
    _finish(client, keys, before, to, closed_ms, wait)
    return Moved(before, to, pairs)


def _recorded(client: redis.Redis, keys: Keys, to: int, wait: Replicas) -> _Recorded:
    """What is recorded, if the number can be changed to this one."""
    names = ["partitions", "format", "repartitioning", "least_reader", "least_writer", _CLOSED_AT]
    found = client.hmget(keys.config, names)
    if found[0] is None:
        raise NotNow("no number of partitions is recorded yet: the first producer or worker records its own")
    try:
        partitions, log_format, begun, least_reader, least_writer, closed_ms = (int(each or 0) for each in found)
    except ValueError:
        raise UnknownLogFormat(f"the recorded configuration of namespace {keys.namespace!r} cannot be read") from None
    for who, needed in (("producers", least_writer), ("workers", least_reader)):
        if needed > LOG_FORMAT:
            raise TooOld(who, needed, LOG_FORMAT, keys.namespace)
    if log_format > LOG_FORMAT or not 1 <= partitions <= MAX_PARTITIONS:
        raise NotNow("another version of contact-sync wrote this log")
    if begun and begun != to:
        raise NotNow(f"the number is being changed to {begun}: finish that first, with that number")
    if not begun and partitions == to:
        if wait:  # what an earlier run recorded may not have reached the replicas
            all_checked(round_trip(client, [("HSET", keys.config, "partitions", str(to))], wait))
        raise NotNow(f"there are already {to} partitions")
    return _Recorded(partitions, bool(begun), closed_ms if begun else 0)


def _check_nobody_is_working(client: redis.Redis, keys: Keys, before: int) -> None:
    if not Gate(Namespace(client, keys, before)).snapshot().paused_ms:
        raise NotNow("deliveries are not paused: stop the producers, contact-sync drain, contact-sync pause")
    if client.exists(keys.ticker):
        raise NotNow("a worker is awake: stop the workers; one that was killed is forgotten within 4 s")


def _check_nothing_in_the_way(client: redis.Redis, keys: Keys, before: int, *, begun: bool) -> None:
    """Refuses the change before anything was changed, if something is in the way."""
    states = _states(client, keys, before)
    if begun and any(state in _IN_THE_WAY for state in states):
        # It was cut short while it closed the logs: pairs move only once all of them are closed.
        _open(client, keys, _closed(states), {"repartitioning": None})
    _refuse(states)


def _close(client: redis.Redis, keys: Keys, before: int, text: str, wait: Replicas) -> None:
    """Closes every log; opens them again if something came into the way of one."""
    states = _states(client, keys, before, text, wait)
    if any(state in _IN_THE_WAY for state in states):
        _open(client, keys, _closed(states), {"repartitioning": None})
    _refuse(states)


def _states(client: redis.Redis, keys: Keys, before: int, text: str = "", wait: Replicas = 0) -> list[bytes]:
    """Whether each partition is open or closed, or what is in the way; with a text, closes those that can be."""
    states: list[bytes] = []
    for first in range(0, before, _AT_ONCE):
        several = range(first, min(first + _AT_ONCE, before))
        calls = [scripts.Call(scripts.CLOSE, _held(keys, p), [CLOSED_BEGINS, text]) for p in several]
        states += [b"wrong-type" if is_wrong_type(each) else checked(each) for each in scripts.run(client, calls, wait)]
    return states


def _closed(states: list[bytes]) -> list[int]:
    return [p for p, state in enumerate(states) if state == b"closed"]


def _refuse(states: list[bytes]) -> None:
    for p, state in enumerate(states):
        if state in _IN_THE_WAY:
            raise NotNow(f"partition {p}: {_IN_THE_WAY[state]}; nothing was changed")


def _held(keys: Keys, p: int) -> list[str]:
    kept = [keys.late(p), keys.dead(p), keys.dead_pairs(p), *keys.pending_classes(p), keys.parked(p)]
    return [keys.lease(p), keys.events(p), keys.bulk(p), *kept]


def _move_pairs(client: redis.Redis, keys: Keys, p: int, to: int, wait: Replicas) -> int:
    """Moves what a partition's ledgers remember to the owners' new partitions.

    It is written there before it is removed here, so that a move that was cut off can be run again: the partitions may
    lie on several nodes of a cluster.
    """
    moved = 0
    for ledger in (keys.ledger_old, keys.ledger_new):  # in this order, so that the newer one wins
        cursor = -1
        while cursor:
            reply: Any = client.hscan(ledger(p), max(cursor, 0), count=_PAGE)
            cursor, found = reply
            homes = {pair: partition_of(split_pair(pair)[0], to) for pair in found}
            leaving = [pair for pair, home in homes.items() if home != p]
            copies = [("HSET", ledger(homes[pair]), pair, found[pair]) for pair in leaving]
            all_checked(round_trip(client, copies, wait))
            all_checked(round_trip(client, [("HDEL", ledger(p), pair) for pair in leaving], wait))
            moved += len(leaving)
    return moved


def _move_totals(client: redis.Redis, keys: Keys, p: int, wait: Replicas) -> None:
    """Adds a partition's counters to those of the first, and notes there that they are added: a second run skips it.

    One that has none leaves the note alone: a second run comes by those that the first has removed already.
    """
    added = client.hget(keys.partition(0), _ADDED)
    totals = [("HINCRBY", keys.totals(0), *each) for each in client.hgetall(keys.totals(p)).items()]
    if totals and added != b"%d" % p:
        all_checked(transaction(client, [*totals, ("HSET", keys.partition(0), _ADDED, str(p))], wait))
    all_checked(round_trip(client, [("DEL", keys.totals(p))], wait))


def _finish(client: redis.Redis, keys: Keys, before: int, to: int, closed_ms: int, wait: Replicas) -> None:  # noqa: PLR0913, PLR0917 - what repartition knows
    """Opens the logs, then records their number: a producer or worker that comes in between is told to wait.

    Every partition takes the latest rotation time of all, so that none claims to remember more than it does.
    """
    rotated = max((int(client.hget(keys.partition(p), "rotated") or 0) for p in range(max(before, to))), default=0)
    closed = [p for p in range(to) if client.type(keys.events(p)) == b"string"]
    remembers = {"rotated": str(rotated), "vouched": str(rotated)} if rotated else {}
    # What was appended until then is settled: it says so to receipts, whose entries are of streams that are no more.
    fields = {"settled_ms": str(closed_ms), **remembers}
    # The others are used no more, and would still tell the former number.
    all_checked(round_trip(client, [("HDEL", keys.partition(p), _NOTED) for p in range(to, before)], wait))
    recorded = {"partitions": to, "repartitioning": None, _CLOSED_AT: None}
    _open(client, keys, closed, recorded, dict.fromkeys(range(to), fields), wait)


def _open(  # noqa: PLR0913, PLR0917 - what the last step writes
    client: redis.Redis,
    keys: Keys,
    closed: list[int],
    config: Mapping[str, int | None],
    fields: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    wait: Replicas = 0,
) -> None:
    """Opens logs and writes fields of partitions, then fields of the configuration (None removes one).

    The configuration comes last, and whole: until then the change can be run again.
    """
    commands: list[tuple[Any, ...]] = []
    # A log is opened last: all else is written of one that is found open, wherever this was cut off.
    for p, mapping in fields.items():
        commands.append(("HSET", keys.partition(p), *(each for item in mapping.items() for each in item)))
    for p in closed:
        commands.append(("HDEL", keys.partition(p), *_OF_THE_STREAM))
        commands.append(("DEL", keys.events(p), keys.bulk(p)))
    commands.append(("HDEL", keys.partition(0), _ADDED))
    all_checked(round_trip(client, commands, wait))
    changes = [
        ("HDEL", keys.config, name) if value is None else ("HSET", keys.config, name, str(value))
        for name, value in config.items()
    ]
    all_checked(transaction(client, changes, wait))
