"""Reads the files that settings name."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_bytes(path: Path, most: int) -> bytes:
    """Returns the first bytes of a file, this many at most.

    Raises:
        OSError: it cannot be read, or is a pipe: whoever opens one waits until somebody writes, which may be never.
    """
    if stat.S_ISFIFO(path.stat().st_mode):
        raise OSError(errno.EINVAL, "Is a pipe")
    with path.open("rb") as file:
        return file.read(most)
