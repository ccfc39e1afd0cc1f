"""What past reconciliations did, and how far the endpoint had drifted by its own counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

    from producers.contract.keys import Keys
    from worker.admin.status import Status

KEPT: Final = 100
"""Runs that are kept; older ones go."""


def drift(before: Status, after: Status, sent: int) -> dict[str, Any]:
    """What the endpoint said of what it was sent: it counts only what it did not have, or still had.

    Args:
        before: a look before anything was sent.
        after: a look when it was delivered, or given up.
        sent: how many changes were sent.

    Returns:
        ``inserted`` and ``deleted`` (its own counts), ``others``: changes that others said meanwhile, which may be
        among them; ``delivered``: whether nothing waited at either look, so that the counts are whole.
    """

    def moved(name: str) -> int:
        return after.totals[name] - before.totals[name]

    return {
        "inserted": moved("inserted"),
        "deleted": moved("deleted"),
        "others": moved("events") - sent,
        "delivered": before.idle and after.idle,
    }


def record(client: redis.Redis, keys: Keys, run: Mapping[str, Any]) -> None:
    """Keeps what a run did.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    client.xadd(keys.reconcile_history, {"run": json.dumps(run)}, maxlen=KEPT, approximate=False)


def past_runs(client: redis.Redis, keys: Keys, most: int = KEPT) -> list[dict[str, Any]]:
    """The runs that are kept, the newest first, each with ``ended`` (Unix ms).

    Args:
        client: the log's Redis.
        keys: the namespace's keys.
        most: how many.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    found: Any = command(client, "XREVRANGE", keys.reconcile_history, "+", "-", "COUNT", most)
    runs = []
    for entry_id, fields in found:
        value = fields[b"run"] if isinstance(fields, dict) else fields[1]
        runs.append({"ended": int(entry_id.partition(b"-")[0]), **json.loads(value)})
    return runs
