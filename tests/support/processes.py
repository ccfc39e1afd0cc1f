"""What tests ask of the operating system about processes that are not their children."""

from __future__ import annotations

import os
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may ever reap an orphan in a container without an init, so Linux is asked for its state.
    return not Path("/proc/self").exists() or _status(pid, "State")[:1] not in {"Z", "X", ""}


def is_stopped(pid: int) -> bool:
    """Whether the process stands still; Linux only."""
    return _status(pid, "State").startswith("T")


def parent_of(pid: int) -> int:
    """Process id of the parent; Linux only."""
    return int(_status(pid, "PPid"))


def _status(pid: int, name: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
