"""Seconds and memory of computing a reconciliation, by rows.

The source and the ledger hold the same pairs, which is the most there is to compare; nothing is sent. Each size is
computed in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from worker.reconcile.plan import Plan
from worker.reconcile.rows import Row

if TYPE_CHECKING:
    from tests.bench.processes import Endpoint

_OWNER_HAS: Final = 50
_ROWS: Final = (100_000, 1_000_000, 10_000_000)


def reconciling(_at: Endpoint, count: int, _rounds: int) -> dict[str, Any]:
    """Computes each size, up to a hundred times as many rows as a drain has changes."""
    found = {}
    for rows in _ROWS:
        if rows <= 100 * count:
            command = [sys.executable, "-m", "tests.bench.reconcile", str(rows)]
            found[str(rows)] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def _compute(count: int) -> dict[str, float]:
    began = time.monotonic()
    owners = count // _OWNER_HAS + 1
    with Plan(lambda _: None) as plan:
        plan.read((Row(n + 1, b"%d\x1f%d" % (n % owners, n), "upsert") for n in range(count)), None)
        plan.add_known(((b"%d\x1f%d" % (n % owners, n), b"u0,1795460000000") for n in range(count)), (), None)
        plan.compute(1_795_460_000_005)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.monotonic() - began, "mb": peak}


if __name__ == "__main__":
    print(json.dumps(_compute(int(sys.argv[1]))))  # noqa: T201 - the process that asked reads it
