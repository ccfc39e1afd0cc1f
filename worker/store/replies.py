"""What Redis' replies mean: errors among them, keys of the wrong type, the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ResponseError

from producers.nodes.trip import NodeAwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def checked(reply: Any) -> Any:
    """Returns the reply.

    Raises:
        redis.RedisError: the reply is an error.
    """
    if isinstance(reply, Exception):
        raise reply
    return reply


def all_checked(replies: Sequence[Any]) -> list[Any]:
    """Returns the replies.

    Raises:
        redis.RedisError: one of them is an error.
    """
    return [checked(reply) for reply in replies]


def is_wrong_type(reply: object) -> bool:
    """Whether the reply is an error because something else stored a key of another type under one of our names."""
    return isinstance(reply, ResponseError) and "WRONGTYPE" in str(reply)


def time_ms(reply: Sequence[Any]) -> int:
    """Unix ms from the reply to TIME: seconds and microseconds, as numbers or as their digits."""
    seconds, micros = reply
    return int(seconds) * 1000 + int(micros) // 1000


def unless_away(read: Callable[[], T], otherwise: T) -> T:
    """Returns what is read; something else if the node of a cluster that holds it does not answer."""
    try:
        return read()
    except NodeAwayError:
        return otherwise
