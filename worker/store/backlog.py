"""Finds what waits: one scan over all partitions in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from worker.core.backlog import PartitionBacklog, Survey
from worker.store.client import command, round_trip
from worker.store.delete_scan import decode_deletes
from worker.store.replies import all_checked, is_wrong_type, time_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.store.namespace import Namespace


class BacklogScanner:
    """Scans all partitions of one namespace; costs two commands while nothing waits."""

    def __init__(self, namespace: Namespace) -> None:
        self._client, self._keys = namespace.client, namespace.keys
        self._all = range(namespace.partitions)
        self._kept = [key for p in self._all for key in (self._keys.pending(p), self._keys.late(p))]
        self._wrong_type: list[int] = []
        self._inbox: list[str] = []
        self._inbox_holds = False

    def scan(self, block_ms: int = 0) -> Survey:
        """Finds what waits in which partition.

        Args:
            block_ms: longest wait for a first entry if the logs and the inbox are empty; 0 scans the logs alone, and
                does not wait.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        self._inbox, self._inbox_holds = [self._keys.inbox] if block_ms else [], False
        heads = self._heads(block_ms)
        if not heads and not self._client.exists(*self._kept):
            return Survey(0, [], list(self._wrong_type), self._inbox_holds)
        replies = round_trip(
            self._client,
            [
                ("TIME",),
                ("MGET", *(self._keys.lease(p) for p in self._all)),
                ("EXISTS", *(self._keys.pending(p) for p in self._all)),
                ("EXISTS", *(self._keys.late(p) for p in self._all)),
                ("GET", self._keys.deletes),
            ],
        )
        deletes = replies.pop()
        time, leases, pending, late = all_checked(replies)
        found = {p: PartitionBacklog(p, leased=lease is not None) for p, lease in zip(self._all, leases, strict=True)}
        self._measure(found, heads, pending=bool(pending), late=bool(late))
        for p, delete_ms in decode_deletes(deletes if isinstance(deletes, bytes) else b"").items():
            if p in heads and delete_ms >= heads[p]:  # a delete older than the log's oldest entry was settled
                found[p].delete_ms = delete_ms
        waiting = [each for each in found.values() if each.oldest_ms or each.pending or each.late_due_ms]
        now_ms = time_ms(time)
        for each in waiting:
            if each.oldest_ms > now_ms:  # the clock went back: how long it has waited is unknown
                each.oldest_ms = 1
        return Survey(now_ms, waiting, list(self._wrong_type), self._inbox_holds)

    def _measure(self, found: dict[int, PartitionBacklog], heads: dict[int, int], *, pending: bool, late: bool) -> None:
        commands = [each for p in heads for each in (("XLEN", self._keys.events(p)), ("HLEN", self._keys.dead(p)))]
        commands += [("HLEN", self._keys.pending(p)) for p in self._all if pending]
        late_due: list[tuple[str, ...]] = [("HGET", self._keys.partition(p), "late_due") for p in self._all if late]
        replies = iter(round_trip(self._client, [*commands, *late_due]))  # an error for each key of the wrong type
        for p, oldest_ms in heads.items():
            found[p].oldest_ms, found[p].entries = oldest_ms, _number(next(replies))
            found[p].dead = _number(next(replies))
        for p in self._all if pending else ():
            found[p].pending = _number(next(replies))
        for p in self._all if late else ():
            found[p].late_due_ms = _number(next(replies))

    def _heads(self, block_ms: int) -> dict[int, int]:
        """The time of the oldest entry of each log that has one: settled entries are gone, so the first one waits."""
        if self._wrong_type:
            self._find_wrong_type()  # it may be a log again
        logs = [p for p in self._all if p not in self._wrong_type]
        try:
            return self._read_heads(logs, block_ms)
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
        # One key of the wrong type fails the whole command: find it, and scan the others.
        self._find_wrong_type()
        return self._read_heads([p for p in self._all if p not in self._wrong_type], 0)

    def _read_heads(self, logs: Sequence[int], block_ms: int) -> dict[int, int]:
        names = [*(self._keys.events(p) for p in logs), *self._inbox]
        if not names:
            return {}
        block: list[Any] = ["BLOCK", block_ms] if block_ms else []
        reply = command(self._client, "XREAD", "COUNT", 1, *block, "STREAMS", *names, *(["0-0"] * len(names)))
        heads = {name.decode(): int(entries[0][0].partition(b"-")[0]) for name, entries in reply or ()}
        self._inbox_holds = heads.pop(self._keys.inbox, None) is not None
        by_name = dict(zip(names, logs, strict=False))
        return {by_name[name]: oldest_ms for name, oldest_ms in heads.items()}

    def _find_wrong_type(self) -> None:
        pipe = self._client.pipeline(transaction=False)
        for p in self._all:
            pipe.type(self._keys.events(p))
        for name in self._inbox:
            pipe.type(name)
        found = pipe.execute()
        self._inbox = [self._keys.inbox] if found[len(self._all) :] == [b"stream"] else []
        kinds = zip(self._all, found, strict=False)
        self._wrong_type = [p for p, kind in kinds if kind not in {b"stream", b"none"}]


def _number(reply: Any) -> int:
    return int(reply) if isinstance(reply, (int, bytes)) else 0
