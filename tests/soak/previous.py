"""Producers of the previous release, each in a process of its own, which say things until they are told to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from tests.support.previous import running_from
from worker.local.worker import environment_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.traffic import Acknowledged
    from worker.config.settings import WorkerSettings

END_SECONDS: Final = 60.0
"""Longest that one may take to get rid of what it has said."""

_SAY: Final = """
import json, random, sys, threading
from producers import ContactChange, ContactProducer, ContactSyncError, NotAccepted

draw = random.Random(int(sys.argv[1]))
ends = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()
told = {"ids": [], "accepted": 0, "refused": 0, "uncertain": 0, "barred": ""}


def one():
    owner, contact = draw.choice([
        (f"h{draw.randrange(5)}", f"h{draw.randrange(4)}"),
        (f"w{draw.randrange(50)}", f"w{draw.randrange(20)}"),
    ])
    return ContactChange(owner=owner, contact=contact, op="delete" if draw.random() < 0.4 else "upsert")


unsent = ()
try:
    with ContactProducer() as producer:
        said = False
        while unsent or not said or not ends.is_set():
            changes = list(unsent) or [one() for _ in range(draw.randrange(1, 12))]
            try:
                ids = producer.send(changes)
                told["ids"] += [[change.owner, str(each)] for change, each in zip(changes, ids)]
                unsent = ()
            except NotAccepted as error:
                told["accepted"] += error.accepted
                told["refused"] += len(error.refused)
                told["uncertain"] += len(error.uncertain)
                unsent = error.changes
            said = True
            ends.wait(0.1)
except ContactSyncError as error:
    told["barred"] = str(error)
json.dump(told, sys.stdout)
"""


class PreviousProducer:
    """One of them, from construction until `end`.

    Args:
        tree: of the previous release.
        settings: what it works with.
        seed: of what it says.
    """

    def __init__(self, tree: Path, settings: WorkerSettings, seed: int) -> None:
        self._partitions = int(settings.partitions or 0)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SAY, str(seed)],
            env=running_from(tree, environment_of(settings, os.environ)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, told: Acknowledged, *, barred: bool) -> None:
        """Waits until all that it said is accepted, and takes note of what it was told.

        Args:
            told: where to.
            barred: whether the log is in a form that it does not know, so that it must say nothing.
        """
        try:
            said, failed = self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            told.died.append(f"a producer of the previous release did not end within {END_SECONDS:.0f} seconds")
            return
        if self._process.returncode:
            told.died.append(f"a producer of the previous release: {(failed.strip().splitlines() or ['?'])[-1]}")
            return
        found: dict[str, Any] = json.loads(said)
        told.note((owner for owner, _ in found["ids"]), [each for _, each in found["ids"]], self._partitions)
        with told.lock:
            told.accepted += found["accepted"]
            told.refused += found["refused"]
            told.uncertain += found["uncertain"]
        if bool(found["barred"]) != barred:
            told.died.append(
                f"a producer of the previous release was {'not ' if barred else ''}barred {found['barred']}"
            )
