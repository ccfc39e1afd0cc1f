"""What the paths of `serve` do, in one of its threads: read the fleet, and move dead letters with a note of it."""

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
from worker.serve.metrics import Families, families, standing

if TYPE_CHECKING:
    from worker.admin.status import Part
    from worker.serve.access import Role
    from worker.serve.snapshots import SnapshotCache
    from worker.store.dead_letters import Wanted

_LOG = structlog.get_logger("contact_sync")

_TRAIL: Final = 50


class Actions:
    """What one namespace is asked for.

    Args:
        looks: how to look at it.
    """

    def __init__(self, looks: SnapshotCache) -> None:
        self._looks = looks
        self._letters = Letters(looks)
        self._audit = Audit(looks.client, looks.keys)

    def metrics(self) -> bytes:
        """All of it for Prometheus, of a look of its own; without Redis that alone is told.

        Raises:
            ContactSyncError: the log was begun otherwise than configured.
        """
        try:
            seen = self._looks.look(fresh_seconds=0)
            found = list(families(seen, self._looks.full_seconds()))
        except redis.RedisError:
            found = list(standing(up=False))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Families(found))
        return generate_latest(registry)

    def status(self) -> dict[str, Any]:
        """What `status --json` tells, each partition at a glance, and Redis' memory.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
            ContactSyncError: the log was begun otherwise than configured.
        """
        seen = self._looks.look()
        now_ms, full_seconds = seen.status.gate.now_ms, self._looks.full_seconds()
        return {
            "status": seen.status.as_json(),
            "lost_words": seen.status.lost_words() or None,
            "retry_seconds": seen.status.gate.wait_ms / 1000,
            "parts": [_part(part, now_ms) for part in seen.status.parts],
            "memory": {
                "used_bytes": seen.memory.used,
                "max_bytes": seen.memory.full or None,
                "full_seconds": full_seconds if full_seconds < float("inf") else None,
            },
            "namespace": self._looks.keys.namespace,
        }

    def explain(self, owner: str, contact: str) -> dict[str, Any]:
        """What is known of a pair, in words.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        looks = self._looks
        readd = looks.settings.readd
        found = explain(looks.client, looks.keys, looks.partitions(), owner, contact, readd=readd)
        lines = list(explanation_lines(found))
        return {"partition": found.partition, "lines": lines, "next": list(next_steps(found))}

    def letters(self, wanted: Wanted, skip: int) -> dict[str, Any]:
        """Some dead letters.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return self._letters.show(wanted, skip)

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
        """Notes a sign-in, if Redis is there: who wants to see what is wrong with it must get in all the same."""
        with suppress(redis.RedisError):
            self._audit.note("sign_in", role, source)

    def trail(self) -> list[dict[str, Any]]:
        """What was done last, the newest first.

        Raises:
            redis.RedisError: Redis does not answer, or refuses.
        """
        return self._audit.last(_TRAIL)

    def _noted(self, action: str, role: Role, source: str, ids: list[str]) -> bool:
        """Whether it is in the audit trail. A full Redis takes no note, but must let letters be purged."""
        try:
            self._audit.note(action, role, source, ids)
        except redis.RedisError as error:
            _LOG.warning("audit_not_written", action=action, letters=len(ids), error=type(error).__name__)
            return False
        return True


def _part(part: Part, now_ms: int) -> list[Any]:
    """Entries, pairs, letters, seconds that the oldest has waited, and whether a worker is there."""
    waited = None if part.oldest_ms is None else max(0, now_ms - part.oldest_ms) / 1000
    return [part.backlog, part.pending, part.dead, waited, part.leased]
