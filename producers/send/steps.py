"""What the shared logic of the producers asks its driver to do, and the two loops that run it.

The logic is written once, as generators without I/O: each yields a step, is sent the step's result, and goes on. The
sync and the async producer differ only in how they perform a step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from producers.contract.query import Query

if TYPE_CHECKING:
    from producers.send.chunk import Chunk, XaddEncoder
    from producers.send.intake import AsyncIntake, Intake

T = TypeVar("T")


class Exchange(NamedTuple):
    """Append a chunk, never repeating a command whose fate is unknown; the result is ``Replies``.

    Attributes:
        encoder: makes the commands.
        chunk: the changes.
    """

    encoder: XaddEncoder
    chunk: Chunk


class Take(NamedTuple):
    """Take the next changes off the caller's iterable; the result is a ``Chunk``, empty at the end.

    Attributes:
        intake: what to take them from.
    """

    intake: Intake | AsyncIntake


class Sleep(NamedTuple):
    """Wait.

    Attributes:
        seconds: how long.
    """

    seconds: float


class Block(NamedTuple):
    """Make a call that reads or writes a local file; an event loop must not wait for it. The result is the call's.

    Attributes:
        call: what to call.
    """

    call: Callable[[], Any]


Step = Exchange | Query | Take | Sleep | Block
Steps = Generator[Step, Any, T]
"""I/O-free logic that yields steps, is sent their results, and returns a ``T``."""


def run(steps: Steps[T], perform: Callable[[Step], Any]) -> T:
    """Runs the logic to its end. A step that fails raises its error inside the logic, which may handle it."""
    try:
        step = next(steps)
        while True:
            try:
                result = perform(step)
            except BaseException as error:  # noqa: BLE001 - passed on, so that the logic cleans up
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        returned: T = end.value
        return returned


async def run_async(steps: Steps[T], perform: Callable[[Step], Awaitable[Any]]) -> T:
    """``run`` for asyncio."""
    try:
        step = next(steps)
        while True:
            try:
                result = await perform(step)
            except BaseException as error:  # noqa: BLE001 - passed on, a cancellation too
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        returned: T = end.value
        return returned
