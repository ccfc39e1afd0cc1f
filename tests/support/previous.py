"""The previous release beside this tree: its workers and its producers, each in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

PROJECT: Final = Path(__file__).parents[2]

BEFORE_RELEASES: Final = "57d3110"
"""What counts as the previous release while none is tagged: the last state with one log a partition."""

_PRODUCE: Final = """
import json, sys, threading
from itertools import count
from producers import ContactProducer

owners = [sys.argv[1] + str(n) for n in range(12)]
last = {}
with ContactProducer() as producer:
    print("begun", flush=True)
    ends = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()
    for turn in count():
        owner = owners[turn % len(owners)]
        changes = [(owner, f"{turn}.{n}", "upsert") for n in range(3)]
        changes.append((owner, "moves", "delete" if turn // len(owners) % 2 else "upsert"))
        if turn >= 50:  # deleted again while its upsert may wait
            changes.append((owners[(turn - 50) % len(owners)], f"{turn - 50}.0", "delete"))
        producer.send([{"owner": o, "contact": c, "op": op} for o, c, op in changes])
        last.update({(o, c): op for o, c, op in changes})
        if ends.wait(0.02):
            break
json.dump(sorted(pair for pair, op in last.items() if op == "upsert"), sys.stdout)
"""


def previous_commit() -> str | None:
    """The newest release's tag, or what counts as one; None if the history is not here."""
    for name in (_git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^"), BEFORE_RELEASES):
        if name and _git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"):
            return name
    return None


def unpack(commit: str, into: Path) -> Path:
    """Writes the tree of a commit into a directory, and returns it."""
    archive = subprocess.run(["git", "archive", commit], cwd=PROJECT, capture_output=True, check=True).stdout
    into.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-x", "-C", into], input=archive, check=True)
    return into


def running_from(tree: Path | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Python runs the code of a tree; None is this one."""
    return dict(environment) if tree is None else {**environment, "PYTHONPATH": str(tree)}


class Producing:
    """A producer in a process of its own that appends for as long as the context lasts.

    Args:
        tree: whose code it runs; None for this tree's.
        environment: its settings.
        prefix: of its owners, which no other producer may have.
    """

    def __init__(self, tree: Path | None, environment: Mapping[str, str], prefix: str) -> None:
        self._environment = {"PATH": os.environ["PATH"], **running_from(tree, environment)}
        self._prefix = prefix
        self.contacts: set[tuple[str, str]] = set()
        """What must be there in the end; known when the context has ended."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PRODUCE, self._prefix],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "begun\n", self._process.communicate()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            said, failed = self._process.communicate(timeout=60)
        finally:
            self._process.kill()
        if kind is None:
            assert self._process.returncode == 0, failed
            self.contacts = {(owner, contact) for owner, contact in json.loads(said)}


def _git(*args: str) -> str:
    ran = subprocess.run(["git", *args], cwd=PROJECT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""
