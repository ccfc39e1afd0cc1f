"""Reads the status of a namespace: what is waiting, since when, what was done, and how the endpoint is."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from producers.nodes.cluster import ClusterClient
from producers.nodes.trip import NodeAwayError
from worker.admin.obstacles import obstacles
from worker.core.codec import Unreadable, decode_mark
from worker.core.dead_letter import DEAD_CAP
from worker.core.entry import entry_time_ms
from worker.core.gate import FIELDS, read_snapshot
from worker.core.lane import BULK, CLASSES
from worker.core.lease import UNTOLD
from worker.core.numbers import are, many
from worker.core.times import iso_utc
from worker.store import scripts
from worker.store.agreed import CLOSED
from worker.store.client import command, read_together, round_trip
from worker.store.delete_scan import is_delete
from worker.store.gate import Gate
from worker.store.nodes import Node, nodes_of, open_partitions
from worker.store.presence import Worker, present
from worker.store.replies import all_checked, checked, is_wrong_type, time_ms, unless_away

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import redis

    from producers.contract.change import Lane
    from producers.contract.keys import Keys
    from worker.core.gate import GateSnapshot
    from worker.store.namespace import Namespace

TOTALS: Final = (
    *("events", "coalesced", "superseded", "stale", "requests", "retries", "repairs", "records_confirmed"),
    *("upserts_confirmed", "deletes_confirmed", "inserted", "deleted", "dead_lettered", "forgotten"),
    "suppressed",
)
"""The counters of section 6 of the contract, in its order."""

_ENDS: Final = ("records_confirmed", "coalesced", "superseded", "stale", "dead_lettered", "forgotten", "suppressed")
"""Each accepted entry ends in exactly one of these, or is waiting."""

HEADS: Final = 100
"""Number of entries of each log that are read to find the oldest delete."""

_AT_ONCE: Final = 64  # partitions read in one transaction, which blocks Redis for its time


class Lost(NamedTuple):
    """When Redis lost changes that it had accepted.

    Attributes:
        after_ms: the last time that Redis remembered when it came back (Unix ms), 0 if it was empty.
        before_ms: when a worker noticed (Unix ms): changes accepted between the two may be lost.
        trimmed: entries that somebody removed from the logs before they were read.
        came_back: whether Redis came back empty or older.
    """

    after_ms: int
    before_ms: int
    trimmed: int
    came_back: bool

    def as_json(self) -> dict[str, Any]:
        """As in `status --json`."""
        after = iso_utc(self.after_ms) if self.after_ms else None
        return {"accepted_after": after, "accepted_before": iso_utc(self.before_ms), "trimmed_entries": self.trimmed}


class Part(NamedTuple):
    """Numbers of one partition.

    Attributes:
        backlog: entries in its stream.
        pending: pairs that workers have read and the endpoint has not confirmed.
        dead: dead letters.
        parked: pairs whose record was refused with an unknown code, and is tried again later.
        oldest_ms: when Redis accepted its oldest unconfirmed change (Unix ms), None if there is none. If its id is
            ahead of the clock: when that was first seen.
        oldest_delete_ms: the same for its oldest delete.
        bulk_backlog: those of its entries that are in the bulk lane's stream.
        bulk_pending: those of its pending pairs that wait in the bulk lane.
        bulk_ms: when Redis accepted the oldest change of the bulk lane (Unix ms), None if there is none.
        live_ms: the same for the live lane.
        leased: whether a worker holds it.
        late: pairs that unanswered requests may still change, or that are to be repaired after one.
    """

    backlog: int
    pending: int
    dead: int
    oldest_ms: int | None
    oldest_delete_ms: int | None
    leased: bool
    late: int = 0
    parked: int = 0
    bulk_backlog: int = 0
    bulk_pending: int = 0
    bulk_ms: int | None = None
    live_ms: int | None = None


class LaneStatus(NamedTuple):
    """What waits in one lane.

    Attributes:
        backlog_events: entries in its streams.
        pending_pairs: pairs that workers have read and the endpoint has not confirmed.
        oldest_ms: when Redis accepted its oldest unconfirmed change (Unix ms), None if there is none.
    """

    backlog_events: int
    pending_pairs: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a namespace.

    Attributes:
        partitions: the number of partitions.
        backlog_events: entries in the streams.
        pending_pairs: pairs that workers have read and the endpoint has not confirmed.
        in_flight: partitions that a worker holds now.
        oldest_ms: when Redis accepted the oldest unconfirmed change (Unix ms), None if there is none; of the live lane,
            unless only bulk waits.
        lanes: what waits in the lanes `live` and `bulk`.
        oldest_delete_ms: the same for the oldest live delete, among the first entries of each log.
        dead_letters: the number of dead letters.
        parked: pairs whose record was refused with an unknown code, and is tried again later.
        worker_awake: whether the ticker of any worker is alive.
        gate: the state of the endpoint, and the time by Redis' clock.
        totals: the counters; `events` includes the entries that are still in the streams.
        wrong_type_partitions: those with a key of the wrong type, which something else wrote.
        lost: when changes were lost that Redis had accepted, None if none were or that is acknowledged.
        replaced_partitions: those whose log is not the one that was read before, until acknowledged.
        workers: those seen in the last minute, each with all its processes.
        parts: each partition, in order.
        counted: every counter, including those that are not in `totals`.
        inbox_entries: entries in the inbox, which the ticker moves into the streams.
        wrong_type_inbox: whether the inbox's key has the wrong type.
        wrong_type_keys: those of the whole fleet's keys that have the wrong type.
        foreign_keys: the same for each of `wrong_type_partitions`.
        closed_partitions: those whose logs are closed for another number of partitions, with that number.
        late_pairs: pairs that unanswered requests may still change, or that are to be repaired after one.
        late_until_ms: when the last of these requests can act no longer (Unix ms), None if there is none.
        workers_wanted: how many workers the fleet needs, None if that was not asked.
        nodes: the servers that hold the partitions.
        open_partitions: those whose slot is on its way between two nodes of a cluster, so that they wait.
        away_partitions: those whose server does not answer; all numbers are without them.
        gate_away: whether the endpoint's state is unknown, because the server that holds it does not answer.
    """

    partitions: int
    backlog_events: int
    pending_pairs: int
    in_flight: int
    oldest_ms: int | None
    dead_letters: int
    worker_awake: bool
    gate: GateSnapshot
    totals: Mapping[str, int]
    wrong_type_partitions: Sequence[int]
    oldest_delete_ms: int | None = None
    lanes: Mapping[Lane, LaneStatus] = field(default_factory=dict)
    lost: Lost | None = None
    replaced_partitions: Sequence[int] = ()
    workers: Sequence[Worker] = ()
    parts: Sequence[Part] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    inbox_entries: int = 0
    wrong_type_inbox: bool = False
    wrong_type_keys: Sequence[str] = ()
    foreign_keys: Mapping[int, Sequence[str]] = field(default_factory=dict)
    closed_partitions: Mapping[int, int] = field(default_factory=dict)
    late_pairs: int = 0
    late_until_ms: int | None = None
    workers_wanted: int | None = None
    parked: int = 0
    nodes: Sequence[Node] = ()
    away_partitions: Sequence[int] = ()
    open_partitions: Sequence[int] = ()
    gate_away: bool = False

    @property
    def waiting_changes(self) -> int:
        """Accepted changes that have not ended yet; several of one pair and op count as one."""
        return self.totals["events"] - sum(self.totals[name] for name in _ENDS)

    @property
    def oldest_seconds(self) -> float | None:
        """Time since Redis accepted the oldest unconfirmed change, None if there is none."""
        return self.seconds_since(self.oldest_ms)

    @property
    def oldest_delete_seconds(self) -> float | None:
        """The same for the oldest delete: people notice a removed contact that is still there."""
        return self.seconds_since(self.oldest_delete_ms)

    def seconds_since(self, ms: int | None) -> float | None:
        """Time from then (Unix ms) until the status was read, None if there is no such time; never 0."""
        return None if ms is None else max(1, self.gate.now_ms - ms) / 1000

    @property
    def retry_at_ms(self) -> int | None:
        """When the next probe may be sent (Unix ms), None while the gate is open or paused."""
        if self.gate.state == "ok" or self.gate.paused_ms:
            return None
        return self.gate.now_ms + self.gate.wait_ms if self.gate.wait_ms else self.gate.not_before_ms or None

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting, nothing is in flight, and no late request may undo what was confirmed."""
        return self.idle_but_late and not self.late_pairs

    @property
    def idle_but_late(self) -> bool:
        """Whether nothing is waiting and nothing is in flight; late requests are left out.

        What a server holds that does not answer is not known, and may be waiting.
        """
        known = not (self.away_partitions or self.gate_away or any(each.away for each in self.nodes))
        return known and not (self.inbox_entries or self.backlog_events or self.pending_pairs or self.in_flight)

    @property
    def full_partitions(self) -> list[int]:
        """Those that have no room for another dead letter, and whose logs hold entries."""
        return [p for p, part in enumerate(self.parts) if part.dead >= DEAD_CAP and part.backlog]

    def late_words(self) -> str:
        """Says for how many pairs unanswered requests are still awaited; empty if for none."""
        if not self.late_pairs:
            return ""
        until = "" if self.late_until_ms is None else f" until {iso_utc(self.late_until_ms)}"
        return f"unanswered requests may still change {many(self.late_pairs, 'pair')}{until}"

    def away_words(self) -> str:
        """Says which servers do not answer; empty if all do."""
        if not self.away_partitions and not self.gate_away:
            return ""
        away = [f"{each.address} ({each.away})" for each in self.nodes if each.away]
        numbers = ", ".join(map(str, self.away_partitions))
        nobodys = f"no node serves the slots of partitions {numbers}" if numbers else "no node serves the gate's slot"
        count = len(self.away_partitions)
        hidden = f"{many(count, 'partition')} {are(count)} not counted"
        return f"Redis is partly away: {', '.join(away) or nobodys}; {hidden}"

    def lost_words(self) -> str:
        """Says what Redis lost, as far as that is known; empty if no loss was noticed."""
        parts = []
        if self.lost is not None and self.lost.trimmed:
            parts.append(f"somebody trimmed {many(self.lost.trimmed, 'unread entry')} from the logs")
        if self.lost is not None and self.lost.came_back:
            after = f"after {iso_utc(self.lost.after_ms)} and " if self.lost.after_ms else ""
            parts.append(f"Redis came back without changes accepted {after}before {iso_utc(self.lost.before_ms)}")
        if self.replaced_partitions:
            numbers = ", ".join(map(str, self.replaced_partitions))
            parts.append(f"the log of partitions {numbers} was replaced, and was read from its start")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The fields of `status --json`."""
        gate, retry_at = self.gate, self.retry_at_ms
        return {
            "at": iso_utc(gate.now_ms),
            "partitions": self.partitions,
            "oldest_seconds": self.oldest_seconds,
            "oldest_delete_seconds": self.oldest_delete_seconds,
            "waiting_changes": self.waiting_changes,
            "backlog_events": self.backlog_events,
            "inbox_entries": self.inbox_entries,
            "pending_pairs": self.pending_pairs,
            "lanes": {
                lane: {
                    "backlog_events": each.backlog_events,
                    "pending_pairs": each.pending_pairs,
                    "oldest_seconds": self.seconds_since(each.oldest_ms),
                }
                for lane, each in self.lanes.items()
            },
            "partitions_in_flight": self.in_flight,
            "late_pairs": self.late_pairs,
            "late_until": None if self.late_until_ms is None else iso_utc(self.late_until_ms),
            "dead_letters": self.dead_letters,
            "parked": self.parked,
            "endpoint": {
                "state": "unknown" if self.gate_away else gate.state,
                "reason": gate.reason or None,
                "attempts": gate.attempts,
                "retry_at": None if retry_at is None else iso_utc(retry_at),
                "last_error": gate.error or None,
                "rate": None if gate.rate is None else round(gate.rate, 3),
                "in_flight_limit": gate.in_flight_limit,
                "in_flight": gate.in_flight,
                "paused_since": iso_utc(gate.paused_ms) if gate.paused_ms else None,
            },
            "worker_awake": self.worker_awake,
            "workers": [each.as_json() for each in self.workers],
            "workers_wanted": self.workers_wanted,
            "totals": dict(self.totals),
            "wrong_type_partitions": list(self.wrong_type_partitions),
            "wrong_type_inbox": self.wrong_type_inbox,
            "wrong_type_keys": list(self.wrong_type_keys),
            "closed_partitions": list(self.closed_partitions),
            "full_partitions": list(self.full_partitions),
            "obstacles": [each._asdict() for each in obstacles(self)],
            "lost": None if self.lost is None else self.lost.as_json(),
            "replaced_partitions": list(self.replaced_partitions),
            "nodes": [each.as_json() for each in self.nodes],
            "away_partitions": list(self.away_partitions),
        }


def _part(found: Sequence[Any]) -> Part:
    (
        backlog,
        bulk_backlog,
        heads,
        late,
        bulk_heads,
        *classes,
        dead,
        parked,
        (oldest, oldest_delete, oldest_bulk, *_),
        leased,
        _,
        _,
        _,
        _,
    ) = found
    since = [entry_time_ms(entry_id) for entry_id, _ in heads[:1]] + ([int(oldest)] if oldest else [])
    deletes = [entry_time_ms(entry_id) for entry_id, fields in heads if is_delete(fields)][:1]
    deletes += [int(oldest_delete)] if oldest_delete else []
    bulk_since = [entry_time_ms(entry_id) for entry_id, _ in bulk_heads] + ([int(oldest_bulk)] if oldest_bulk else [])
    return Part(
        backlog=backlog + bulk_backlog,
        pending=sum(classes),
        dead=dead,
        oldest_ms=min(since or bulk_since, default=None),
        oldest_delete_ms=min(deletes, default=None),
        leased=bool(leased),
        late=late,
        parked=parked,
        bulk_backlog=bulk_backlog,
        bulk_pending=sum(classes[: len(BULK)]),
        bulk_ms=min(bulk_since, default=None),
        live_ms=min(since, default=None),
    )


def _earliest(times: Iterable[int | None]) -> int | None:
    return min((each for each in times if each is not None), default=None)


def read_status(namespace: Namespace) -> Status:
    """Reads all partitions, each in one transaction, so that its numbers add up.

    Raises:
        Unreadable: what is stored is something else.
        redis.RedisError: Redis does not answer, or refuses.
    """
    try:
        return _read(namespace)
    except Unreadable:
        raise
    except ValueError:
        raise Unreadable("a number in a key of a partition, or in NAMESPACE:config,") from None


def _read(namespace: Namespace) -> Status:
    client, keys, _ = namespace
    # The inbox first: an entry that moves meanwhile is counted in its partition.
    empty_inbox: tuple[int, int | None, bool] = (0, None, False)
    inbox_entries, inbox_ms, wrong_type_inbox = unless_away(lambda: _inbox(client, keys), empty_inbox)
    parts: list[Part] = []
    counted: Counter[str] = Counter()
    wrong_type: dict[int, list[str]] = {}
    replaced = []
    trimmed = trimmed_ms = 0
    away = []
    for p, replies in _replies(namespace):
        if any(isinstance(reply, NodeAwayError) for reply in replies):
            away.append(p)
            parts.append(_part(_EMPTY))
            continue
        fits = [None if isinstance(reply, ResponseError) else reply for reply in replies]
        if fits != replies:
            asked = zip(_commands(keys, p), replies, strict=True)
            wrong_type[p] = list(dict.fromkeys(str(each[1]) for each, reply in asked if is_wrong_type(reply)))
        # A key of the wrong type hides its own number, not the others.
        parts.append(_part([reply if reply is not None else empty for reply, empty in zip(fits, _EMPTY, strict=True)]))
        stored = fits[_STORED] or _EMPTY[_STORED]
        if stored[3]:
            replaced.append(p)
        if stored[4]:
            trimmed += int(stored[4])
            trimmed_ms = max(trimmed_ms, int(stored[5]))
        counted.update({name.decode(): int(number) for name, number in (fits[-1] or {}).items()})
    backlog = sum(part.backlog for part in parts)
    counted["events"] += backlog  # the scripts count an entry when they read it
    if len(away) == namespace.partitions:
        raise NodeAwayError(_first_away(namespace), written=False)
    wrong_type_keys, awake = _fleet_keys(client, keys)
    gate, gate_away = _gate(namespace)
    workers = unless_away(lambda: present(namespace, gate.now_ms), None)
    inbox_ms, parts = _in_the_past(namespace, gate.now_ms, inbox_ms, parts)
    bulk = LaneStatus(
        sum(part.bulk_backlog for part in parts),
        sum(part.bulk_pending for part in parts),
        _earliest(part.bulk_ms for part in parts),
    )
    live = LaneStatus(
        backlog - bulk.backlog_events,
        sum(part.pending for part in parts) - bulk.pending_pairs,
        _earliest((inbox_ms, *(part.live_ms for part in parts))),
    )
    return Status(
        partitions=namespace.partitions,
        backlog_events=backlog,
        pending_pairs=sum(part.pending for part in parts),
        in_flight=sum(part.leased for part in parts),
        oldest_ms=live.oldest_ms or bulk.oldest_ms,
        lanes={"live": live, "bulk": bulk},
        oldest_delete_ms=_earliest(part.oldest_delete_ms for part in parts),
        dead_letters=sum(part.dead for part in parts),
        parked=sum(part.parked for part in parts),
        # Not known to be asleep, if neither is told: that a node is away is said, and nobody starts workers for it.
        worker_awake=(workers is None or bool(workers)) if awake is None else awake,
        gate=gate,
        workers=workers or [],
        totals={name: counted[name] for name in TOTALS},
        wrong_type_partitions=list(wrong_type),
        wrong_type_keys=wrong_type_keys,
        foreign_keys=wrong_type,
        closed_partitions=_closed(namespace, wrong_type),
        lost=_lost(namespace, trimmed, trimmed_ms),
        replaced_partitions=replaced,
        parts=parts,
        counted=counted,
        inbox_entries=inbox_entries,
        wrong_type_inbox=wrong_type_inbox,
        late_pairs=sum(part.late for part in parts),
        late_until_ms=unless_away(lambda: _late_until_ms(namespace, parts), None),
        nodes=nodes_of(namespace),
        away_partitions=away,
        open_partitions=open_partitions(namespace),
        gate_away=gate_away,
    )


def _first_away(namespace: Namespace) -> str:
    return "; ".join(f"{each.address}: {each.away}" for each in nodes_of(namespace) if each.away) or "no node answers"


def _in_the_past(
    namespace: Namespace, now_ms: int, inbox_ms: int | None, parts: Sequence[Part]
) -> tuple[int | None, list[Part]]:
    """Replaces times ahead of the clock by when they were first seen, so that what waits always has an age.

    Redis gives no entry an id before the last one. So a clock that was ahead once leaves such ids for that long.
    """
    seen = _First(namespace, now_ms)
    if inbox_ms is not None and inbox_ms > now_ms:
        inbox_ms = seen.ms(0, "ahead_inbox", inbox_ms)
    past = list(parts)
    for p, part in enumerate(parts):
        delete, live, bulk = part.oldest_delete_ms, part.live_ms, part.bulk_ms
        if bulk is not None and bulk > now_ms:
            bulk = seen.ms(p, "ahead_bulk", bulk)
        if live is not None and live > now_ms:
            live = seen.ms(p, "ahead", live)
        oldest = bulk if live is None else live
        if delete is not None and delete > now_ms:
            delete = oldest  # it waits for no longer than the oldest of all
        past[p] = part._replace(oldest_ms=oldest, oldest_delete_ms=delete, live_ms=live, bulk_ms=bulk)
    return inbox_ms, past


def _fleet_keys(client: redis.Redis, keys: Keys) -> tuple[list[str], bool | None]:
    """The fleet's own keys that have the wrong type, and whether a ticker is alive; None if its node is away."""
    types = {
        keys.config: b"hash",
        keys.gate: b"hash",
        keys.ticker: b"string",
        keys.deletes: b"string",
        keys.workers: b"hash",
        keys.inbox: b"stream",
        keys.suppressed: b"hash",
        keys.audit: b"stream",
        **reconcile_types(keys),
    }
    found = _types_of(client, types)
    ticker = found[keys.ticker]
    return _foreign(types, found), None if ticker == _AWAY else ticker == types[keys.ticker]


_AWAY: Final = b""


def reconcile_types(keys: Keys) -> dict[str, bytes]:
    """The keys of reconciliations, each with its type."""
    return {keys.reconcile: b"hash", keys.reconcile_history: b"stream", keys.reconcile_lease: b"string"}


def foreign_keys(client: redis.Redis, types: Mapping[str, bytes]) -> list[str]:
    """Those of these keys that have another type than their own.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    return _foreign(types, _types_of(client, types))


def _types_of(client: redis.Redis, keys: Iterable[str]) -> dict[str, bytes]:
    """The type of each key; `none` if it does not exist, `_AWAY` if its node is away."""
    asked = list(keys)
    replies = round_trip(client, [("TYPE", key) for key in asked])
    known = [_AWAY if isinstance(each, NodeAwayError) else checked(each) for each in replies]
    return dict(zip(asked, known, strict=True))


def _foreign(types: Mapping[str, bytes], found: Mapping[str, bytes]) -> list[str]:
    return [key for key, kind in found.items() if kind not in {b"none", _AWAY, types[key]}]


def _gate(namespace: Namespace) -> tuple[GateSnapshot, bool]:
    """The gate, and whether its node is away; as it is at first if so, or if its key has the wrong type."""
    away = False
    try:
        return Gate(namespace).snapshot(), away
    except NodeAwayError:
        away = True
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
    (time,) = all_checked(round_trip(namespace.client, [("TIME",)]))
    return read_snapshot(dict.fromkeys(FIELDS), time_ms(time)), away


def _closed(namespace: Namespace, wrong_type: Iterable[int]) -> dict[int, int]:
    """Those of these partitions whose logs are closed, with the number of partitions that they were closed for."""
    asked = list(wrong_type)
    texts = round_trip(namespace.client, [("GET", namespace.keys.events(p)) for p in asked])
    found = {p: CLOSED.match(text) for p, text in zip(asked, texts, strict=True) if isinstance(text, bytes)}
    return {p: int(each[1]) for p, each in found.items() if each}


class _First:
    """When times ahead of the clock were first seen; noted in the hash of a partition."""

    def __init__(self, namespace: Namespace, now_ms: int) -> None:
        self._client, self._keys, _ = namespace
        self._now_ms = now_ms

    def ms(self, p: int, field: str, ahead_ms: int) -> int:
        """When `ahead_ms` was first seen (Unix ms), at least 1 ms ago; notes it in the field if that is now."""
        key = self._keys.partition(p)
        (noted,) = round_trip(self._client, [("HGET", key, field)])
        if isinstance(noted, bytes) and noted.startswith(b"%d," % ahead_ms):
            return min(int(noted.partition(b",")[2]), self._now_ms - 1)
        # If it is refused, Redis accepts no writes, the user may only read, or the key has the wrong type: then its age
        # stays short, and everything else is still told.
        with suppress(ResponseError):
            scripts.run(self._client, [scripts.Call(scripts.NOTE, [key], [field, f"{ahead_ms},{self._now_ms}"])])
        return self._now_ms - 1


def _late_until_ms(namespace: Namespace, parts: Sequence[Part]) -> int | None:
    """When the last late request can act no longer (Unix ms); None if there is no mark, or it was cleared meanwhile."""
    marked = [("HVALS", namespace.keys.late(p)) for p, part in enumerate(parts) if part.late]
    replies = round_trip(namespace.client, marked)
    return max(
        (decode_mark(value).until_ms for values in replies if not is_wrong_type(values) for value in checked(values)),
        default=None,
    )


def _inbox(client: redis.Redis, keys: Keys) -> tuple[int, int | None, bool]:
    """The number of entries in the inbox, when Redis accepted the oldest (Unix ms), if the key has the wrong type."""
    try:
        head = command(client, "XRANGE", keys.inbox, "-", "+", "COUNT", 1)
        return (int(client.xlen(keys.inbox)), entry_time_ms(head[0][0]), False) if head else (0, None, False)
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        return 0, None, True


def _lost(namespace: Namespace, trimmed: int, trimmed_ms: int) -> Lost | None:
    """What was lost: noted in the configuration, and in a cluster in the first partition of each node."""
    client, keys, partitions = namespace
    noted = [keys.config, *(keys.partition(p) for p in range(partitions) if isinstance(client, ClusterClient))]
    replies = round_trip(client, [("HMGET", key, "lost_from", "lost_at") for key in noted])
    found = [checked(each) for each in replies if not is_wrong_type(each) and not isinstance(each, NodeAwayError)]
    losses = [(int(after or 0), int(before)) for after, before in found if before is not None]
    if not losses and not trimmed:
        return None
    after_ms = min((after for after, _ in losses), default=0)
    before_ms = max([trimmed_ms, *(before for _, before in losses)])
    return Lost(after_ms, before_ms, trimmed, came_back=bool(losses))


def acknowledge(namespace: Namespace) -> None:
    """Records that an operator knows of lost changes: the status no longer shows them.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    client, keys, partitions = namespace
    pipe = client.pipeline(transaction=False)
    pipe.hdel(keys.config, "lost_from", "lost_at")
    for p in range(partitions):
        pipe.hdel(keys.partition(p), "strayed", "trimmed", "trimmed_at", "lost_from", "lost_at", *UNTOLD)
    pipe.execute()


_EMPTY: Final[tuple[Any, ...]] = (0, 0, (), 0, (), *([0] * CLASSES), 0, 0, (None,) * 6, None, 0, 0, 0, {})

_STORED: Final = 7 + CLASSES
"""Which of the replies about a partition are its own fields."""


def _replies(namespace: Namespace) -> list[tuple[int, list[Any]]]:
    client, keys, partitions = namespace
    replies_by_partition = []
    for first in range(0, partitions, _AT_ONCE):
        several = range(first, min(first + _AT_ONCE, partitions))
        replies = read_together(client, partial(_queue, keys, several))
        all_checked([each for each in replies if not is_wrong_type(each) and not isinstance(each, NodeAwayError)])
        width = len(_EMPTY)
        replies_by_partition += [(p, replies[i * width : (i + 1) * width]) for i, p in enumerate(several)]
    return replies_by_partition


def _commands(keys: Keys, p: int) -> list[tuple[Any, ...]]:
    """What is read of one partition, each with its key behind its name.

    In this order, so that a change is seen even if a worker moves it on between two commands.
    """
    return [
        ("XLEN", keys.events(p)),
        ("XLEN", keys.bulk(p)),
        ("XRANGE", keys.events(p), "-", "+", "COUNT", HEADS),
        ("HLEN", keys.late(p)),
        ("XRANGE", keys.bulk(p), "-", "+", "COUNT", 1),
        *(("HLEN", key) for key in reversed(keys.pending_classes(p))),  # a pair moves from bulk to live, never back
        ("HLEN", keys.dead(p)),
        ("HLEN", keys.parked(p)),
        ("HMGET", keys.partition(p), "oldest", "oldest_delete", "oldest_bulk", "strayed", "trimmed", "trimmed_at"),
        ("GET", keys.lease(p)),
        *(("HLEN", key) for key in (keys.ledger_new(p), keys.ledger_old(p), keys.dead_pairs(p))),
        ("HGETALL", keys.totals(p)),
    ]


def _queue(keys: Keys, several: Iterable[int], pipe: Any) -> None:
    for p in several:
        for each in _commands(keys, p):
            command(pipe, *each)
