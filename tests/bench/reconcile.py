"""Seconds and memory of reckoning a reconciliation, by rows: ``python -m tests.bench.reconcile 100000 1000000``.

The source and the ledger hold the same pairs, which is the most there is to compare; nothing is sent. Each size is
reckoned in a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from worker.reconcile.plan import Plan
from worker.reconcile.rows import Row

_OWNER_HAS = 50


def _reckon(count: int) -> None:
    began = time.monotonic()
    owners = count // _OWNER_HAS + 1
    with Plan(lambda _: None) as plan:
        plan.read((Row(n + 1, b"%d\x1f%d" % (n % owners, n), "upsert") for n in range(count)), None)
        plan.add_known(((b"%d\x1f%d" % (n % owners, n), b"u0,1795460000000") for n in range(count)), (), None)
        plan.compute(1_795_460_000_005)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count:>12,} rows {time.monotonic() - began:>8.1f} s {peak:>6,} MB")  # noqa: T201 - it is what was asked for


def main() -> None:
    """Reckons each size that is asked for."""
    if sys.argv[1:2] == ["--here"]:
        _reckon(int(sys.argv[2]))
        return
    for size in sys.argv[1:] or ["100000", "1000000"]:
        subprocess.run([sys.executable, "-m", "tests.bench.reconcile", "--here", size], check=True)


if __name__ == "__main__":
    main()
