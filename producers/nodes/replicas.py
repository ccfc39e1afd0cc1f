"""Counts a change as accepted only when enough replicas have it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from producers.nodes.exchange import Answer
from producers.nodes.trip import NotReplicatedError, why_not_replicated

if TYPE_CHECKING:
    from collections.abc import Callable

_COUNTED_SECONDS: Final = 1.0

_REMEMBERED_SECONDS: Final = 10.0
"""Longer than a failover takes. A master that is deposed loses the replica that takes over before the others leave it:
these will drop what they still get, so that they must not count as all."""


def with_wait(answer: Answer, count: int, wanted: int) -> Answer:
    """Returns the answer to `count` commands that were followed by WAIT: what replicas lack is an error."""
    replies: list[Any] = answer.replies[:count]
    if len(answer.replies) <= count:
        if len(replies) < count:
            return answer._replace(replies=[_lacking(each, str(answer.broken)) for each in replies])
        why: str | None = why_not_replicated(answer.broken, wanted)
    else:
        why = why_not_replicated(answer.replies[count], wanted)
    return Answer(replies if why is None else [_lacking(each, why) for each in replies])


def _lacking(reply: Any, why: str) -> Any:
    return reply if isinstance(reply, Exception) else NotReplicatedError(why)


class ReplicaCount:
    """How many replicas a server has, asked at most once a second.

    Args:
        clock: returns seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counted = float("-inf")
        self._numbers: list[tuple[float, int]] = []

    def due(self) -> bool:
        """Whether to ask again."""
        return self._clock() - self._counted >= _COUNTED_SECONDS

    def note(self, info: Any) -> None:
        """Takes the reply to INFO replication."""
        now = self._counted = self._clock()
        remembered = [each for each in self._numbers if now - each[0] < _REMEMBERED_SECONDS]
        self._numbers = [*remembered, (now, int(info.get("connected_slaves", 0)))]

    @property
    def number(self) -> int:
        """How many there were lately; at least one, since nobody else would have the change."""
        return max([1, *(number for _, number in self._numbers)])
