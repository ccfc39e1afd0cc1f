"""Runs one reconciliation: reads the whole source, computes and checks the changes, and only then sends them."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from producers import ContactChange, ContactProducer, NotAccepted
from producers.contract.change import partition_of
from producers.contract.errors import ContactSyncError
from producers.send.pressure import BulkPacer
from worker.core.entry import split_pair
from worker.reconcile.known import dead_letter_pairs, dead_pairs_of, ledger_entries, ledger_of, waiting_pairs
from worker.reconcile.plan import Limits, Plan
from worker.reconcile.reassert import again, batched, each_change
from worker.reconcile.rows import Reject, Row, limited, row_of
from worker.store.client import command
from worker.store.namespace import Namespace
from worker.store.replies import time_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import redis

    from worker.config.settings import WorkerSettings
    from worker.reconcile.reassert import Share

_CHUNK: Final = 1_000
_NUMBERS: Final = ("rows", "rejects", "duplicates", "known", "unchanged", "newer", "unstamped", "held_back", "dead")


class NotResumable(ContactSyncError):  # noqa: N818 - a name that says what happened needs no suffix
    """There is no run to resume, or it began with another content of the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to reconcile.

    Attributes:
        name: name of the source; an interrupted run is found by it.
        as_of_ms: when the snapshot began (Unix ms); None for now, by Redis's clock.
        owner: the one owner to reconcile; None for all.
        differences: whether to send only differences, which needs a ledger that never forgets.
        limits: the limits of deletes.
        rate: most changes per second; None for no limit.
        dry_run: whether to send nothing.
        resume: whether to continue an interrupted run.
        despite_rejects: whether missing pairs count as deleted although rows were rejected.
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


def reconcile(  # noqa: PLR0913 - input, target, options and callbacks
    rows: Iterable[Row | Reject | Sequence[object] | Mapping[str, object]],
    client: redis.Redis,
    settings: WorkerSettings,
    partitions: int,
    options: Options,
    *,
    on_reject: Callable[[Reject], None] = lambda _: None,
    on_sent: Callable[[int, int], None] = lambda _done, _of: None,
    on_wait: Callable[[str], None] = lambda _: None,
    diff: IO[str] | None = None,
) -> dict[str, Any]:
    """Brings the endpoint in line with the rows; returns the numbers of what was done.

    Args:
        rows: rows of a source, tuples (owner, contact[, op]) or mappings with these names; read to the end, once.
        client: the log's Redis.
        settings: the settings of the namespace.
        partitions: number of partitions.
        options: how to reconcile.
        on_reject: called with each rejected row.
        on_sent: called with the number of changes sent so far, and their total.
        on_wait: called with one line when it waits because Redis is filling up, and when it goes on.
        diff: file for the changes, as JSON lines; None writes none.

    Raises:
        SourceBroken: the source cannot be read to its end; nothing was sent.
        TooManyDeletes: there are too many deletes; nothing was sent.
        NoRoomError: the temporary directory cannot be written; nothing was sent.
        NotResumable: there is no run to resume.
        NotAccepted: Redis did not accept all changes; resume the run.
        redis.RedisError: Redis does not answer, or refuses.
    """
    namespace = Namespace(client, settings.keys, partitions)
    checkpoint = _Checkpoint(namespace, options)
    as_of_ms = checkpoint.as_of_ms
    owner = None if options.owner is None else options.owner.encode()
    with Plan(on_reject) as plan:
        read = (row if isinstance(row, Row | Reject) else row_of(n, row) for n, row in enumerate(rows, 1))
        plan.read((limited(row, settings.id_max) for row in read), owner)
        plan.add_dead(dead_letter_pairs(namespace))
        if options.differences:
            known = ledger_entries(namespace)
            plan.add_known(known, waiting_pairs(namespace), owner)
        plan.compute(as_of_ms, despite_rejects=options.despite_rejects)
        counts = plan.counts
        options.limits.check(counts["delete"], counts["upsert"], counts["known"] or counts["rows"])
        for op, who, contact in plan.changes() if diff is not None else ():
            print(json.dumps({"owner": who, "contact": contact, "op": op, "at": as_of_ms}), file=diff)
        sent = 0 if options.dry_run else _send(plan, settings, options, checkpoint, on_sent, on_wait)
    found = {name: counts[name] for name in _NUMBERS}
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


def reassert(  # noqa: PLR0913 - target, options and callbacks
    namespace: Namespace,
    settings: WorkerSettings,
    share: Share,
    options: Options,
    *,
    on_wait: Callable[[str], None] = lambda _: None,
    diff: IO[str] | None = None,
) -> dict[str, Any]:
    """Says again a share of what is believed confirmed, in the bulk lane; returns the numbers of what was done.

    Args:
        namespace: where the ledger is.
        settings: the settings of the namespace.
        share: the pairs of this run.
        options: its owner, rate and dry run count.
        on_wait: called with one line when it waits because Redis is filling up, and when it goes on.
        diff: file for the changes, as JSON lines; None writes none.

    Raises:
        NotAccepted: Redis did not accept all changes; the next run takes the same share.
        redis.RedisError: Redis does not answer, or refuses.
    """
    now_ms = time_ms(command(namespace.client, "TIME"))
    owner = None if options.owner is None else options.owner.encode()
    counts, began = Counter[str](), time.monotonic()
    size = _CHUNK if options.rate is None else max(1, min(_CHUNK, int(options.rate / 10)))
    with ContactProducer(settings=settings.model_copy(update={"id_max_characters": None})) as producer:
        pacer = BulkPacer(producer.load, on_wait)
        for p in range(namespace.partitions) if owner is None else [partition_of(owner, namespace.partitions)]:
            entries = (each for each in ledger_of(namespace, p) if owner is None or split_pair(each[0])[0] == owner)
            found = again(entries, dead_pairs_of(namespace, p), share, now_ms)
            counts.update(share_known=found.known, unstamped=found.unstamped, dead=found.dead)
            for chunk in batched(each_change(found.changes), size):
                for each in chunk if diff is not None else ():
                    print(each.model_dump_json(include={"owner", "contact", "op", "at"}), file=diff)
                counts["reasserted"] += len(chunk)
                if options.dry_run:
                    continue
                pacer.wait()
                producer.send(chunk, lane="bulk")
                if options.rate is not None:
                    time.sleep(max(0.0, began + counts["reasserted"] / options.rate - time.monotonic()))
    return {
        "reasserted": counts["reasserted"],
        "reassert": {
            **{name: counts[name] for name in ("share_known", "unstamped", "dead")},
            "begin": share.begin,
            "end": share.end,
        },
    }


def nothing_read(name: str, now_ms: int, *, dry_run: bool) -> dict[str, Any]:
    """The numbers of a run without a source."""
    numbers = dict.fromkeys((*_NUMBERS, "upserts", "deletes", "sent"), 0)
    return {"source": name, "as_of": now_ms, "mode": "reassert", "dry_run": dry_run, **numbers}


def _send(  # noqa: PLR0913, PLR0917 - input, target, options and callbacks
    plan: Plan,
    settings: WorkerSettings,
    options: Options,
    checkpoint: _Checkpoint,
    on_sent: Callable[[int, int], None],
    on_wait: Callable[[str], None],
) -> int:
    of = plan.counts["upsert"] + plan.counts["delete"]
    # With differences, changes of an interrupted run may be confirmed by now; the differences left are all sent again.
    done, said = (0, _Said()) if options.differences else checkpoint.begin(plan)
    checkpoint.save(plan.digest, done, said)
    before, began = done, time.monotonic()
    # Rows are checked. A pair that was confirmed before there was a limit is deleted whatever its ids.
    with ContactProducer(settings=settings.model_copy(update={"id_max_characters": None})) as producer:
        pacer = BulkPacer(producer.load, on_wait)
        for chunk in _chunks(plan, done, checkpoint.as_of_ms, options.rate):
            pacer.wait()
            producer.send(chunk, lane="bulk")
            done += len(chunk)
            for each in chunk:
                said.add(each.op, each.owner, each.contact)
            checkpoint.save(plan.digest, done, said)
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


class _Said:
    """What changes say that were sent, in order."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)

    def add(self, op: str, owner: str, contact: str) -> None:
        self._hash.update(f"{op}\n{owner}\n{contact}\n".encode())

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()


class _Checkpoint:
    """The progress of an unfinished run of this source, stored in Redis.

    Attributes:
        as_of_ms: when the snapshot began (Unix ms); a resumed run keeps the time of its first start.
    """

    def __init__(self, namespace: Namespace, options: Options) -> None:
        client = namespace.client
        self._client, self._key, self._name = client, namespace.keys.reconcile, options.name
        self._found: dict[str, Any] | None = None
        if options.resume:
            stored: Any = client.hget(self._key, self._name)
            if stored is None:
                raise NotResumable("nothing to resume: no run of this source was interrupted")
            try:
                self._found = json.loads(stored)
            except ValueError:
                raise NotResumable("the stored progress cannot be read: start again without --resume") from None
        now_ms = time_ms(command(client, "TIME"))
        self.as_of_ms = self._found["as_of"] if self._found else options.as_of_ms or now_ms
        if self.as_of_ms > now_ms:
            raise ContactSyncError("--as-of must not be later than now, by Redis's clock")

    def begin(self, plan: Plan) -> tuple[int, _Said]:
        """Returns how many of the changes the interrupted run has sent, and what they say.

        They are only counted. If others come first by now, because rows have another order or pairs have dead letters
        since, all are sent again.
        """
        if self._found is None:
            return 0, _Said()
        if self._found["digest"] != plan.digest:
            raise NotResumable("the source has changed since that run began: start again without --resume")
        said = _Said()
        for each in islice(plan.changes(), self._found["sent"]):
            said.add(*each)
        same = said.checksum == self._found.get("said")
        return (self._found["sent"], said) if same else (0, _Said())

    def save(self, digest: int, sent: int, said: _Said) -> None:
        """Stores how many changes are in the log, and what they say."""
        value = json.dumps({"as_of": self.as_of_ms, "digest": digest, "sent": sent, "said": said.checksum})
        self._client.hset(self._key, self._name, value)

    def end(self) -> None:
        """Removes the checkpoint, because the run is complete."""
        self._client.hdel(self._key, self._name)


__all__ = ["NotAccepted", "NotResumable", "Options", "reconcile"]
