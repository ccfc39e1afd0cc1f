"""The history of reconciliations, and the endpoint's drift by its own counts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from worker.store.client import command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.admin.status import Status
    from worker.store.namespace import Namespace

KEPT: Final = 100
"""Number of runs that are kept; older ones are removed."""


def drift(before: Status, after: Status, sent: int) -> dict[str, Any]:
    """Returns how far the endpoint had drifted: it counts only inserts of missing contacts and deletes of present ones.

    Args:
        before: the status before anything was sent.
        after: the status when everything was delivered, or the wait was given up.
        sent: number of changes that were sent.

    Returns:
        ``inserted`` and ``deleted``: the endpoint's own counts. ``others``: changes that other producers sent
        meanwhile; the counts may include them. ``delivered``: whether nothing waited before and after, so that the
        counts are complete.
    """

    def moved(name: str) -> int:
        return after.totals[name] - before.totals[name]

    return {
        "inserted": moved("inserted"),
        "deleted": moved("deleted"),
        "others": moved("events") - sent,
        "delivered": before.idle and after.idle,
    }


def record(namespace: Namespace, run: Mapping[str, Any]) -> None:
    """Stores the result of a run.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    namespace.client.xadd(namespace.keys.reconcile_history, {"run": json.dumps(run)}, maxlen=KEPT, approximate=False)


def past_runs(namespace: Namespace, most: int = KEPT) -> list[dict[str, Any]]:
    """Returns the results of past runs, the newest first, each with ``ended`` (Unix ms).

    Args:
        namespace: whose runs.
        most: most runs to return.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    found: Any = command(namespace.client, "XREVRANGE", namespace.keys.reconcile_history, "+", "-", "COUNT", most)
    runs = []
    for entry_id, fields in found:
        value = fields[b"run"] if isinstance(fields, dict) else fields[1]
        runs.append({"ended": int(entry_id.partition(b"-")[0]), **json.loads(value)})
    return runs
