"""Detects that accepted changes are lost: Redis came back empty or older, or somebody trimmed a log before it was read.

Nothing in such a Redis shows that anything is missing. So each worker process remembers a count that only rises, and
asks for it regularly: a smaller count means that accepted changes are gone. The scripts that claim partitions and
rotate ledgers count what is missing in a log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from producers.contract.errors import ContactSyncError
from worker.core.lease import UNTOLD
from worker.core.times import iso_utc
from worker.store import scripts
from worker.store.agreed import record_partitions
from worker.store.client import node_of, round_trip

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import redis

    from producers.contract.keys import Keys
    from worker.core.events import Log
    from worker.store.namespace import Namespace

_LOG = structlog.get_logger("contact_sync")

GROUPS: Final = 64
"""Number of groups. Each process is in one of them by chance, and each group has a count of its own. So a process that
used a deposed master notices what it accepted, unless one of its group used the successor for as long."""

EVERY_SECONDS: Final = 1.0
"""Time between two checks. A loss of only the changes since the last check may go unnoticed."""


def tell_of_logs(client: redis.Redis, keys: Keys, replaced: Collection[int], trimmed: Mapping[int, int]) -> None:
    """Raises an alarm for each log that was replaced, and one for all logs from which entries are gone unread.

    Args:
        client: where the logs are.
        keys: their names.
        replaced: the partitions whose log is not the one that was read before.
        trimmed: for each partition how many entries are gone, 0 for none.

    Raises:
        redis.ConnectionError, redis.TimeoutError: Redis is away; the same alarms are raised again.
    """
    for p in replaced:
        _LOG.error("log_replaced", partition=p, reads="from the start of the log that is there")
    gone = {p: entries for p, entries in trimmed.items() if entries}
    if gone:
        _LOG.error("log_trimmed", partitions=list(gone), lost=sum(gone.values()))
    round_trip(client, [("HDEL", keys.partition(p), *UNTOLD) for p in {*replaced, *gone}])


@dataclass(slots=True)
class _Seen:
    """What a process knows of the checks of one hash.

    Attributes:
        beat, own: the greatest counts that it was given: of all processes, and of its group.
        noted_ms: when a loss was last noted there (Unix ms), 0 if none is.
        unanswered: whether its last check had no answer, so that Redis may have noticed a loss, and it has not heard.
    """

    beat: int = 0
    own: int = 0
    noted_ms: int = 0
    unanswered: bool = False


_ANSWERED: Final = -1
"""Stands for a last check that had an answer."""


class LossDetector:
    """One process' memory of Redis.

    Args:
        namespace: what this process works with.
        monotonic: a clock, in seconds.
        log: receives the alarm.
        give_up: ends the process if another number of partitions was recorded meanwhile.
    """

    def __init__(
        self, namespace: Namespace, monotonic: Callable[[], float], log: Log, give_up: Callable[[], None]
    ) -> None:
        self._client, self._keys, self._partitions = namespace
        self._monotonic = monotonic
        self._log = log
        self._give_up = give_up
        self._group = int.from_bytes(os.urandom(4)) % GROUPS
        self._seen: dict[str, _Seen] = {}
        self._counting: set[int] = set()
        self._next = 0.0

    def check(self) -> None:
        """Checks if it is time to, and raises one alarm for each loss.

        Raises:
            redis.ConnectionError, redis.TimeoutError: Redis is away.
        """
        now = self._monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        counted = self._counted()
        calls = []
        for key in counted:
            seen = self._seen.setdefault(key, _Seen())
            told_ms = seen.noted_ms if seen.unanswered else _ANSWERED
            seen.unanswered = seen.beat > 0  # the first check of a process can notice nothing
            calls.append(
                scripts.Call(scripts.BEAT, [key], [seen.beat, self._group, seen.own, told_ms, self._partitions])
            )
        for key, reply in zip(counted, scripts.run(self._client, calls), strict=True):
            if isinstance(reply, Exception):
                continue  # Redis accepts no writes, the key has the wrong type, or a node is away: reported elsewhere
            beat, lost_from_ms, lost_at_ms, partitions, own, noted_ms = (int(each) for each in reply)
            self._seen[key] = _Seen(beat, own, noted_ms)
            if lost_at_ms:
                self._alarm(lost_from_ms, lost_at_ms)
            elif partitions not in {0, self._partitions}:
                self._agree()

    def _counted(self) -> list[str]:
        """The hashes in which checks are counted: the configuration, and in a cluster one more on each node.

        A slot that moves takes its count along, and what its former node lost shows nowhere else. So it stays counted.
        """
        first = {node: p for p in reversed(range(self._partitions)) if (node := node_of(self._client, p)) is not None}
        self._counting.update(first.values())
        return [self._keys.config, *(self._keys.partition(p) for p in sorted(self._counting))]

    def _alarm(self, lost_from_ms: int, lost_at_ms: int) -> None:
        self._log.error(
            "redis_lost_changes",
            came_back="older" if lost_from_ms else "empty",
            accepted_after=iso_utc(lost_from_ms) if lost_from_ms else None,
            accepted_before=iso_utc(lost_at_ms),
        )
        self._agree()  # so that producers continue with the number that this fleet uses

    def _agree(self) -> None:
        try:
            record_partitions(self._client, self._keys, self._partitions)
        except ContactSyncError as error:
            self._log.error("partitions_changed", error=str(error))
            self._give_up()
