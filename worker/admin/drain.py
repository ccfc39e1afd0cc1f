"""Waits until nothing waits or is in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.admin.status import Status

POLL_SECONDS: Final = 0.2
"""Between two looks; a look at 64 partitions takes Redis a few milliseconds."""

Drained = Literal["drained", "held", "timeout"]


def drain(
    look: Callable[[], Status],
    on_look: Callable[[Status], None],
    *,
    timeout_seconds: float | None,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[Drained, Status]:
    """Looks until it is over; returns how it ended, and the last look.

    Args:
        look: looks at the namespace.
        on_look: told of every look, for a progress bar.
        timeout_seconds: when to give up, None for never; something is looked at once in any case.
        monotonic: the clock of the timeout, in seconds.
        sleep: how to wait between two looks.
    """
    ends = None if timeout_seconds is None else monotonic() + timeout_seconds
    while True:
        status = look()
        on_look(status)
        if status.idle:
            return "drained", status
        # A partition that is still held does no harm to a held endpoint's verdict: nothing can go out.
        if status.gate.state == "held" and (status.backlog_events or status.pending_pairs):
            return "held", status
        left = None if ends is None else ends - monotonic()
        if left is not None and left <= 0:
            return "timeout", status
        sleep(POLL_SECONDS if left is None else min(POLL_SECONDS, left))
