"""Where targets write files: in memory, and gone at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final


def _directory() -> Path:
    """A directory in memory, where there is one; each process has its own."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of its own in it
    return Path(tempfile.mkdtemp(prefix="contact-sync-fuzz-", dir=memory if memory.is_dir() else None))


class _Place:
    """The directory of this process, made at its first use and removed at its end."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._pid = 0

    def fresh(self) -> Path:
        """An empty directory."""
        if self.path is None or self._pid != os.getpid():
            self.path, self._pid = _directory(), os.getpid()
        for each in self.path.iterdir():
            each.unlink()
        return self.path

    def __del__(self) -> None:
        if self.path is not None and self._pid == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)


PLACE: Final = _Place()
"""That of this process."""
