"""What the commands share: a connection to Redis, failures as one line and an exit status, values as text."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click
import orjson
import redis

from producers.contract.redis_url import split_url
from producers.nodes.trip import NotReplicatedError
from producers.settings import variable_of
from worker.store.agreed import agreed_partitions
from worker.store.client import connect
from worker.store.namespace import Namespace
from worker.store.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.settings import ProducerSettings

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

_BYTES: Final = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""Names of files and variables may hold bytes that are not UTF-8: how Python keeps each, and how it is shown."""

_TIMEOUT_SECONDS: Final = 5.0  # no lease expires while a command waits, so a slow Redis may take longer


class Failure(click.ClickException):
    """Ends the command with one line on standard error.

    Args:
        message: what went wrong, without secrets.
        exit_code: 1 failed, 2 wrong usage or configuration.
    """

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code  # type: ignore[misc] # click sets it on objects too, but declares it on the class

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the line."""
        line = f"contact-sync: {self.message.translate(_BYTES)}"
        if file is None:
            say(line)
        else:
            click.echo(line, file=file)


def say(line: str) -> None:
    """Prints a line on standard error. If nobody can read it, this and the rest is discarded: the work goes on."""
    try:
        click.echo(line, err=True)
    except OSError:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open until the process ends


@contextmanager
def session(settings: ProducerSettings) -> Iterator[Namespace]:
    """Connects to Redis while the command runs; records nothing there.

    Raises:
        Failure: Redis does not answer, or refuses.
        PartitionsMismatch, UnknownLogFormat: the log does not match the settings.
    """
    client = connect(settings.redis_url, settings.redis_credentials, timeout_seconds=_TIMEOUT_SECONDS)
    try:
        yield Namespace(client, settings.keys, agreed_partitions(client, settings))
    except redis.RedisError as error:
        raise Failure(redis_failure(settings.redis_url, error)) from None
    finally:
        client.close()


def redis_failure(url: str, error: Exception) -> str:
    """Says in one line which Redis failed, and how."""
    if isinstance(error, NotReplicatedError):
        name = variable_of("wait_replicas")
        return f"{name}: {error}: a failover may undo what was done; run the command again"
    return f"Redis at {shown_url(url)} ({variable_of('redis_url')}): {refusal(error) or str(error).rstrip('.')}"


def shown_url(url: str) -> str:
    """The URL without parts that may be secret: user, password and options."""
    parts = split_url(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def echo_json(value: object, *, lines: bool = False) -> None:
    """Prints a value as JSON: indented, or on one line."""
    options = orjson.OPT_APPEND_NEWLINE | (0 if lines else orjson.OPT_INDENT_2)
    click.echo(orjson.dumps(_as_utf8(value), option=options), nl=False)


def _as_utf8(value: Any) -> Any:
    """The value with the bytes in its texts that are not UTF-8 shown: JSON can hold no others."""
    match value:
        case str():
            return value.translate(_BYTES).encode(errors="backslashreplace").decode()
        case dict():
            return {_as_utf8(key): _as_utf8(each) for key, each in value.items()}
        case list() | tuple():
            return [_as_utf8(each) for each in value]
    return value


def painted(text: str, color: str) -> str:
    """Colours the text if standard output is a terminal that wants colours (https://no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg=color) if wanted else text


def printable(text: str) -> str:
    """The text on one line, without control characters: foreign text must not control a terminal."""
    shown = text.translate(_BYTES)
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in shown)
