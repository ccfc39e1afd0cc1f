"""Bugs in what is restored from a backup."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Patch

BACKUP: Final = (
    Mutant(
        "restored_and_sent",
        "what waited in a backup is sent at once, and brings back contacts that were deleted since",
        (Patch("worker/admin/backup.py", "    Gate(namespace).pause()\n", "    Gate(namespace).snapshot()\n"),),
        integration=("tests/integration/commands/test_up_backup.py",),
        simulated=False,
    ),
)
