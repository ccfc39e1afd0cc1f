"""How long what waits in the log waits for company (pure)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from worker.config.settings import WorkerSettings


class Linger(NamedTuple):
    """How long the oldest change, and the oldest delete, wait for company (milliseconds)."""

    change_ms: int
    delete_ms: int

    @staticmethod
    def of(settings: WorkerSettings) -> Linger:
        """As it is set; a delete never lingers for longer than anything else."""
        change_ms = int(settings.linger_seconds * 1000)
        return Linger(change_ms, min(change_ms, int(settings.delete_linger_seconds * 1000)))
