"""Where targets write files: in memory, and gone at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a directory of its own in it
_BASE: Final = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())


def _prefix(pid: int) -> str:
    return f"contact-sync-fuzz-{pid}-"


def remove_of(pid: int) -> None:
    """Removes what a process has left that could not end by itself, as libFuzzer ends it."""
    for each in _BASE.glob(f"{_prefix(pid)}*"):
        shutil.rmtree(each, ignore_errors=True)


class _Place:
    """The directory of this process, made at its first use and removed at its end."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._pid = 0

    def fresh(self) -> Path:
        """An empty directory."""
        if self.path is None or self._pid != os.getpid():
            self.path, self._pid = Path(tempfile.mkdtemp(prefix=_prefix(os.getpid()), dir=_BASE)), os.getpid()
        for each in self.path.iterdir():
            each.unlink()
        return self.path

    def __del__(self) -> None:
        if self.path is not None and self._pid == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)


PLACE: Final = _Place()
"""That of this process."""
