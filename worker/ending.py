"""How commands that own processes end: cleanly, whoever asks."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the block as `sys.exit` would, so that what it holds is closed; to be used in the main thread.

    Without it the process ends at once, with the cursor of a live view gone; and as a container's first process it
    would not end at all.
    """

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
