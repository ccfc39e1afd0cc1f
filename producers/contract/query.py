"""Commands to ask Redis, and how to ask them: for reads, and for writes that may be repeated without harm."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from redis.exceptions import InvalidResponse

if TYPE_CHECKING:
    import redis
    import redis.asyncio

T = TypeVar("T")

Command = tuple[str | bytes, ...]
"""The words of one command."""


class Query(NamedTuple):
    """Commands for one round trip; the answer is the list of their replies.

    Attributes:
        commands: the commands, in order.
    """

    commands: tuple[Command, ...]


Asking = Generator[Query, Any, T]
"""I/O-free logic that yields queries, is sent their replies, and returns a ``T``."""


UNREADABLE: Final = (ValueError, LookupError, TypeError)
"""What redis-py raises for a reply that no Redis sends: it takes redirections and pushes apart without a check."""


def unreadable(error: Exception) -> InvalidResponse:
    """The error of such a reply."""
    return InvalidResponse(f"a reply cannot be read: {error}")


def ask(client: redis.Redis, query: Query) -> list[Any]:
    """Returns the replies to the commands, in order.

    Raises:
        redis.RedisError: Redis did not answer, or refused a command.
    """
    try:
        if len(query.commands) == 1:  # a pipeline would put the command's words into the text of an error
            return [client.execute_command(*query.commands[0])]  # type: ignore[no-untyped-call] # redis-py leaves it untyped
        pipe = client.pipeline(transaction=False)
        for command in query.commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call] # as above
        return pipe.execute()
    except UNREADABLE as error:
        raise unreadable(error) from None


async def ask_async(client: redis.asyncio.Redis, query: Query) -> list[Any]:
    """``ask`` for asyncio."""
    try:
        if len(query.commands) == 1:
            return [await client.execute_command(*query.commands[0])]  # type: ignore[no-untyped-call] # as above
        pipe = client.pipeline(transaction=False)
        for command in query.commands:
            pipe.execute_command(*command)
        return await pipe.execute()
    except UNREADABLE as error:
        raise unreadable(error) from None
