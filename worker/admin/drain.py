"""Waits until all changes are delivered: none is waiting or in flight, and no late request may undo one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.admin.status import Status

POLL_SECONDS: Final = 0.2
"""Time between two reads of the status: one of 64 partitions takes Redis a few milliseconds."""

Drained = Literal["drained", "held", "timeout"]


def drain(  # noqa: PLR0913 - four of them are keyword-only, and two of these are the clock
    read: Callable[[], Status],
    on_status: Callable[[Status], None],
    *,
    timeout_seconds: float | None,
    ignore_late: bool = False,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[Drained, Status]:
    """Reads the status until nothing is left; returns how that ended, and the last status.

    Args:
        read: reads the status of the namespace.
        on_status: called with every status, to show progress.
        timeout_seconds: when to give up, None for never; the status is read at least once.
        ignore_late: whether to end although an unanswered request may still undo what was confirmed.
        monotonic: a clock, in seconds, for the timeout.
        sleep: waits for this many seconds.
    """
    ends = None if timeout_seconds is None else monotonic() + timeout_seconds
    while True:
        status = read()
        on_status(status)
        if status.idle or (ignore_late and status.idle_but_late):
            return "drained", status
        # This holds even if a worker still has a partition: nothing can be sent while the gate is held.
        waits = status.backlog_events or status.pending_pairs or (status.late_pairs and not ignore_late)
        if status.gate.state == "held" and waits:
            return "held", status
        left = None if ends is None else ends - monotonic()
        if left is not None and left <= 0:
            return "timeout", status
        sleep(POLL_SECONDS if left is None else min(POLL_SECONDS, left))
