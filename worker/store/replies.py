"""What Redis' replies mean: errors among them, keys of the wrong type, the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
