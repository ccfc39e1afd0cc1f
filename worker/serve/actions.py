"""What each path of `serve` does in a thread: reads the fleet's state, redrives and purges dead letters, audits."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from worker.admin.explain import explain
from worker.admin.narrate import explanation_lines, next_steps
from worker.serve.audit import Audit
from worker.serve.letters import Letters
from worker.serve.metrics import Families, families, families_without_redis
from worker.store.inbox import load_map

if TYPE_CHECKING:
    from worker.admin.status import Part
    from worker.serve.access import Role
    from worker.serve.snapshots import SnapshotCache
    from worker.store.dead_letters import Wanted

_LOG = structlog.get_logger("contact_sync")

_TRAIL: Final = 50


class Actions:
    """The actions on one namespace.

    Args:
        snapshots: the snapshots of this namespace.

    Raises:
        SettingsError: the mapping of the inbox cannot be read, or is invalid.
    """

    def __init__(self, snapshots: SnapshotCache) -> None:
        self._snapshots = snapshots
        self._letters = Letters(snapshots)
        self._audit = Audit(snapshots.client, snapshots.keys)
        self._inbox_map = load_map(snapshots.settings.inbox_map)

    def metrics(self) -> bytes:
        """Returns all metrics in Prometheus's text format, from a new snapshot; without Redis, only a few.

        Raises:
            ContactSyncError: the settings do not match the log.
        """
        try:
            snapshot = self._snapshots.snapshot(fresh_seconds=0)
            found = list(families(snapshot, self._snapshots.full_seconds()))
        except redis.RedisError:
            found = list(families_without_redis(up=False))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Families(found))
        return generate_latest(registry)

    def workers_wanted(self) -> int | None:
        """Returns how many workers the fleet needs, for an autoscaler.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the settings do not match the log.
        """
        return self._snapshots.snapshot().status.workers_wanted

    def status(self) -> dict[str, Any]:
        """Returns the content of `status --json`, a summary of each partition, and Redis's memory.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the settings do not match the log.
        """
        snapshot = self._snapshots.snapshot()
        now_ms, full_seconds = snapshot.status.gate.now_ms, self._snapshots.full_seconds()
        return {
            "status": snapshot.status.as_json(),
            "lost_words": snapshot.status.lost_words() or None,
            "retry_seconds": snapshot.status.gate.wait_ms / 1000,
            "parts": [_part(part, now_ms) for part in snapshot.status.parts],
            "memory": {
                "used_bytes": snapshot.memory.used,
                "max_bytes": snapshot.memory.full or None,
                "full_seconds": full_seconds if full_seconds < float("inf") else None,
            },
            "namespace": self._snapshots.keys.namespace,
        }

    def explain(self, owner: str, contact: str) -> dict[str, Any]:
        """Explains the state of a pair in words.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        snapshots = self._snapshots
        settings = snapshots.settings
        found = explain(
            snapshots.namespace(),
            owner,
            contact,
            readd=settings.readd,
            id_max=settings.id_max,
            inbox_map=self._inbox_map,
        )
        lines = list(explanation_lines(found))
        return {"partition": found.partition, "lines": lines, "next": list(next_steps(found))}

    def letters(self, wanted: Wanted, skip: int) -> dict[str, Any]:
        """Returns a page of dead letters.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return self._letters.show(wanted, skip)

    def parked(self, skip: int) -> dict[str, Any]:
        """Returns a page of parked pairs.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return self._letters.parked(skip)

    def redrive(self, wanted: Wanted, role: Role, source: str) -> dict[str, Any]:
        """Puts letters back into the log.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        answer, ids = self._letters.redrive(wanted)
        return {**answer, "noted": self._noted("redrive", role, source, ids)}

    def purge(self, wanted: Wanted, role: Role, source: str) -> dict[str, Any]:
        """Removes letters for good.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        answer, ids = self._letters.purge(wanted)
        return {**answer, "noted": self._noted("purge", role, source, ids)}

    def signed_in(self, role: Role, source: str) -> None:
        """Records a sign-in, if Redis is up: operators must be able to sign in while Redis is down."""
        with suppress(redis.RedisError):
            self._audit.note("sign_in", role, source)

    def trail(self) -> list[dict[str, Any]]:
        """Returns the newest entries of the audit trail, the newest first.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return self._audit.last(_TRAIL)

    def _noted(self, action: str, role: Role, source: str, ids: list[str]) -> bool:
        """Records an action; returns whether that worked. A full Redis refuses the record, but purging must work."""
        try:
            self._audit.note(action, role, source, ids)
        except redis.RedisError as error:
            _LOG.warning("audit_not_written", action=action, letters=len(ids), error=type(error).__name__)
            return False
        return True


def _part(part: Part, now_ms: int) -> list[Any]:
    """Returns entries, pairs, dead letters, age of the oldest change in seconds, and whether a worker holds it."""
    waited = None if part.oldest_ms is None else max(0, now_ms - part.oldest_ms) / 1000
    return [part.backlog, part.pending, part.dead, waited, part.leased]
