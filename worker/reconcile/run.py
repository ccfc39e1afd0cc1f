"""One reconciliation: the source is read whole, what follows is reckoned and checked, and only then sent."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from producers import ContactChange, ContactProducer, NotAccepted
from producers.contract.errors import ContactSyncError
from worker.reconcile.known import buried, remembered, waiting
from worker.reconcile.plan import Limits, Plan
from worker.reconcile.rows import Reject, Row, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import redis

    from producers.contract.keys import Keys
    from worker.config.settings import WorkerSettings

_CHUNK: Final = 1_000


class NotResumable(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """There is nothing to resume, or it was begun with another source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to reconcile.

    Attributes:
        name: of the source, under which a run that was cut short is found again.
        as_of_ms: when the snapshot began (Unix ms); None for now, by Redis' clock.
        owner: the one owner that is reconciled; None for all.
        differences: whether the ledger remembers for good, so that only differences are sent.
        limits: the safety stop.
        rate: most changes a second, None for as fast as Redis takes them.
        dry_run: whether nothing is sent.
        resume: whether a run that was cut short goes on.
        despite_rejects: whether what is missing counts as gone although rows were rejected.
    """

    name: str
    as_of_ms: int | None = None
    owner: str | None = None
    differences: bool = False
    limits: Limits = field(default_factory=Limits)
    rate: float | None = None
    dry_run: bool = False
    resume: bool = False
    despite_rejects: bool = False


def reconcile(  # noqa: PLR0913 - what it reads, where to, how, and who is told
    rows: Iterable[Row | Reject | Sequence[object] | Mapping[str, object]],
    client: redis.Redis,
    settings: WorkerSettings,
    partitions: int,
    options: Options,
    *,
    on_reject: Callable[[Reject], None] = lambda _: None,
    on_sent: Callable[[int, int], None] = lambda _done, _of: None,
    diff: IO[str] | None = None,
) -> dict[str, Any]:
    """Brings the endpoint to what the rows say; returns what was done, in numbers.

    Args:
        rows: rows of a source, or tuples (owner, contact[, op]) or mappings of these names; read to the end, once.
        client: the log's Redis.
        settings: the namespace's.
        partitions: how many there are.
        options: how.
        on_reject: told of each row that is none.
        on_sent: told how many changes of how many are sent.
        diff: where to write what is sent as JSON lines.

    Raises:
        SourceBroken: the source has no end; nothing was sent.
        TooManyDeletes: the safety stop; nothing was sent.
        NotResumable: there is nothing to resume.
        NotAccepted: Redis took no more; resume.
        redis.RedisError: Redis does not answer, or refuses.
    """
    checkpoint = _Checkpoint(client, settings.keys, options)
    as_of_ms = checkpoint.as_of_ms
    owner = None if options.owner is None else options.owner.encode()
    with Plan(on_reject) as plan:
        plan.read((row if isinstance(row, Row | Reject) else row_of(n, row) for n, row in enumerate(rows, 1)), owner)
        plan.dead_letter(buried(client, settings.keys, partitions))
        if options.differences:
            known = remembered(client, settings.keys, partitions)
            plan.learn(known, waiting(client, settings.keys, partitions), owner)
        plan.compute(as_of_ms, despite_rejects=options.despite_rejects)
        counts = plan.counts
        options.limits.check(counts["delete"], counts["upsert"], counts["known"] or counts["rows"])
        for op, who, contact in plan.changes() if diff is not None else ():
            print(json.dumps({"owner": who, "contact": contact, "op": op, "at": as_of_ms}), file=diff)
        sent = 0 if options.dry_run else _send(plan, settings, options, checkpoint, on_sent)
    names = ("rows", "rejects", "duplicates", "known", "unchanged", "newer", "unstamped", "held_back", "dead")
    found = {name: counts[name] for name in names}
    return {
        "source": options.name,
        "as_of": as_of_ms,
        "mode": "differences" if options.differences else "everything",
        "dry_run": options.dry_run,
        **found,
        "upserts": counts["upsert"],
        "deletes": counts["delete"],
        "sent": sent,
    }


def _send(
    plan: Plan, settings: WorkerSettings, options: Options, checkpoint: _Checkpoint, on_sent: Callable[[int, int], None]
) -> int:
    of = plan.counts["upsert"] + plan.counts["delete"]
    # Where only differences are sent, what was sent before may be none any more: all that still is one is sent again.
    done = 0 if options.differences else checkpoint.begin(plan.digest)
    checkpoint.save(plan.digest, done)
    before, began = done, time.monotonic()
    with ContactProducer(settings=settings) as producer:
        for chunk in _chunks(plan, done, checkpoint.as_of_ms, options.rate):
            producer.send(chunk)
            done += len(chunk)
            checkpoint.save(plan.digest, done)
            on_sent(done, of)
            if options.rate is not None:
                time.sleep(max(0.0, began + (done - before) / options.rate - time.monotonic()))
    checkpoint.end()
    return done - before


def _chunks(plan: Plan, skip: int, as_of_ms: int, rate: float | None) -> Iterator[list[ContactChange]]:
    size = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate / 10)))
    chunk: list[ContactChange] = []
    for number, (op, owner, contact) in enumerate(plan.changes()):
        if number >= skip:
            chunk.append(ContactChange(owner=owner, contact=contact, op=op, at=as_of_ms))
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Checkpoint:
    """How far a run of this source came, in Redis, until it has come to its end.

    Attributes:
        as_of_ms: when the snapshot began; of a run that goes on when it began first.
    """

    def __init__(self, client: redis.Redis, keys: Keys, options: Options) -> None:
        self._client, self._key, self._name = client, keys.reconcile, options.name
        self._found: dict[str, int] | None = None
        if options.resume:
            stored: Any = client.hget(self._key, self._name)
            if stored is None:
                raise NotResumable("nothing to resume: no run of this source was cut short")
            self._found = json.loads(stored)
        clock: Any = client.time()
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        self.as_of_ms = self._found["as_of"] if self._found else options.as_of_ms or now_ms
        if self.as_of_ms > now_ms:
            raise ContactSyncError("--as-of must not be later than now, by Redis' clock")

    def begin(self, digest: int) -> int:
        """How many changes were sent before."""
        if self._found is None:
            return 0
        if self._found["digest"] != digest:
            raise NotResumable("the source is not what it was when that run began: run it anew, without --resume")
        return self._found["sent"]

    def save(self, digest: int, sent: int) -> None:
        """Notes how many changes are in the log."""
        value = json.dumps({"as_of": self.as_of_ms, "digest": digest, "sent": sent})
        self._client.hset(self._key, self._name, value)

    def end(self) -> None:
        """Forgets it: the run has come to its end."""
        self._client.hdel(self._key, self._name)


__all__ = ["NotAccepted", "NotResumable", "Options", "reconcile"]
