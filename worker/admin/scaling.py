"""Tells how many workers the fleet needs. Whoever reads the status makes the next decision if it is due."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson
from redis.exceptions import ResponseError

from worker.core.scaling import NOTHING_DECIDED, Load, Scaling, read_scaling, write_scaling
from worker.store import scripts
from worker.store.replies import is_wrong_type, unless_away

if TYPE_CHECKING:
    from worker.admin.status import Status
    from worker.config.settings import WorkerSettings
    from worker.store.namespace import Namespace

_FIELD: Final = "decision"


def with_workers_wanted(namespace: Namespace, status: Status, settings: WorkerSettings) -> Status:
    """The status, and in it how many workers are wanted.

    The decision is kept in Redis, so that all who ask are told the same, and a restart of `serve` changes nothing.

    Raises:
        redis.RedisError: Redis does not answer, or refuses to read.
    """
    last = _read(namespace)
    decided = last.next(load_of(status, settings))
    if decided is not last:
        note = orjson.dumps(write_scaling(decided)).decode()
        call = scripts.Call(scripts.NOTE, [namespace.keys.scaling], [_FIELD, note])
        # If it is refused, the user may only read, or the key has the wrong type: the next decision begins where this
        # one did, and everything else is still told.
        with suppress(ResponseError):
            scripts.run(namespace.client, [call])
    return replace(status, workers_wanted=decided.wanted)


def load_of(status: Status, settings: WorkerSettings) -> Load:
    """What the status says of the fleet's work."""
    gate = status.gate
    live, bulk = status.lanes["live"], status.lanes["bulk"]
    return Load(
        now_ms=gate.now_ms,
        workers=len(status.workers),
        partitions=status.partitions,
        batch_size=settings.batch_size,
        linger_seconds=settings.linger_seconds,
        accepted=status.totals["events"] + status.inbox_entries,
        ended=status.totals["events"] - status.waiting_changes,
        live=live.backlog_events + live.pending_pairs + status.inbox_entries,
        bulk=bulk.backlog_events + bulk.pending_pairs,
        oldest_seconds=status.seconds_since(live.oldest_ms) or 0.0,
        gate_open=gate.state == "ok",
        rate_binds=bool(gate.rate_bound_ms),
        rate=gate.rate,
        in_flight=gate.in_flight,
        in_flight_limit=gate.in_flight_limit,
    )


def _read(namespace: Namespace) -> Scaling:
    try:
        stored = unless_away(lambda: namespace.client.hget(namespace.keys.scaling, _FIELD), None)
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        stored = None
    if stored is None:
        return NOTHING_DECIDED
    try:
        fields = orjson.loads(stored)
    except orjson.JSONDecodeError:
        return NOTHING_DECIDED
    return read_scaling(fields) if isinstance(fields, dict) else NOTHING_DECIDED
