"""Delivers changes in tests of upstream apps: behind the fixture ``wait_until_synced`` (docs/tutorials/testing.md)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self

from worker.admin.explain import explain
from worker.config.settings import load_worker_settings
from worker.core.numbers import many
from worker.process import runtime

if TYPE_CHECKING:
    from types import TracebackType

    from worker.admin.explain import Explanation
    from worker.process.runtime import Runtime
    from worker.standin.client import StandInClient

ROUND_SECONDS: Final = 0.05
"""How long the worker runs between two checks of the pair."""

QUICK: Final[dict[str, Any]] = {
    "linger_seconds": 0.0,
    "delete_linger_seconds": 0.0,
    "request_timeout_seconds": 1.0,
    "lease_seconds": 2.5,
    "late_seconds": 0.1,
    "backoff_base_seconds": 0.02,
    "backoff_max_seconds": 0.2,
}
"""Short times, so that a test does not wait for linger, retries or answers longer than it must."""


class WaitUntilSynced:
    """A worker in this process that runs while a test waits.

    It reads its settings from the environment at its first call; the times of `QUICK` override them.

    Args:
        endpoint: the endpoint to which it delivers.
    """

    def __init__(self, endpoint: StandInClient) -> None:
        self.endpoint = endpoint
        self._runtime: Runtime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runtime is not None:
            self._runtime.close()

    def __call__(self, owner: str, contact: str, *, seconds: float = 10.0) -> bool:
        """Delivers until no change of the pair waits.

        Args:
            owner: the owner's XC user id.
            contact: the contact's XC user id.
            seconds: longest time to wait; only a failing test waits that long.

        Returns:
            Whether the endpoint has the contact now.

        Raises:
            AssertionError: no change of the pair was emitted, it was not delivered in time, or it became a dead
                letter. The text says what is known about it.
        """
        worker = self._worker()
        ends = time.monotonic() + seconds
        while True:
            worker.flusher.run(ROUND_SECONDS)
            found = self._explain(worker, owner, contact)
            if not _waits(found):
                break
            if time.monotonic() > ends:
                raise AssertionError(f"{owner!r} -> {contact!r} is not synced within {seconds:g} s: {_why(found)}")
        if found.letters:
            letter = found.letters[-1]
            raise AssertionError(f"{owner!r} -> {contact!r} is a dead letter: {letter.reason} {letter.message or ''}")
        if found.known is None:
            raise AssertionError(
                f"{owner!r} -> {contact!r} is not synced: no change of this pair was emitted in this test;"
                " a producer that was made before the test sends to another Redis"
            )
        return (owner, contact) in self.endpoint.contacts(owner)

    def _worker(self) -> Runtime:
        if self._runtime is None:
            settings = load_worker_settings(require_credentials=True)
            self._runtime = runtime.build(settings.model_copy(update=QUICK), stopping=lambda: False)
        return self._runtime

    def _explain(self, worker: Runtime, owner: str, contact: str) -> Explanation:
        return explain(worker.namespace, owner, contact, readd=worker.settings.readd, id_max=worker.settings.id_max)


def _waits(found: Explanation) -> bool:
    return bool(found.entries or found.pending or found.mark)


def _why(found: Explanation) -> str:
    gate = found.gate
    waits = f"{many(len(found.entries), 'entry')} in the log" if found.entries else "it was read but is not confirmed"
    error = f" ({gate.error})" if gate.error else ""
    return f"{waits}; the endpoint is {gate.state.replace('_', ' ')}{error}"
