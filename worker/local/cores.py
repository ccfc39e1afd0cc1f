"""The cores that this process may use: those of its affinity, and no more than its container's processor quota."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def cores(root: Path = Path("/")) -> int:
    """Returns how many cores this process may use, 1 at least.

    Args:
        root: where `proc` and `sys` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of our cgroup and of those above it, in cores; version 2, then version 1."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own = path.strip("/")
            if not controllers:
                top = root / "sys/fs/cgroup"
                for group in _upward(top, own):
                    with suppress(OSError, ValueError):  # the root has no such file, and `max` is not a number
                        quota, period = (group / "cpu.max").read_text().split()
                        yield int(quota) / int(period)
            elif "cpu" in controllers.split(","):
                for group in _upward(root / "sys/fs/cgroup/cpu", own):
                    with suppress(OSError, ValueError):
                        quota_us = int((group / "cpu.cfs_quota_us").read_text())
                        if quota_us > 0:  # -1: no quota
                            yield quota_us / int((group / "cpu.cfs_period_us").read_text())


def _upward(top: Path, own: str) -> Iterator[Path]:
    """The directory of a cgroup, and of each above it. In a container only the top may be there."""
    group = top / own
    while group != top:
        yield group
        group = group.parent
    yield top
