"""Reads the settings of `contact-sync serve`: the tokens of those who may act, and of those who may only read."""

from __future__ import annotations

import re
from pathlib import Path  # noqa: TC003 - pydantic reads the fields' types
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from pydantic import AfterValidator, SecretStr

from producers.contract.errors import SettingsError
from producers.settings import setting, variable_of
from worker.config.file import read_bytes
from worker.config.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIT: Final = re.compile(r"[\x21-\x7e]{16,256}")
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|[0-9a-fA-F:]+|")
_RULE: Final = "16 to 256 printable ASCII characters without spaces"
_MAX_BYTES: Final = 65536  # a token file longer than this is some other file


def _check_hosts(value: str) -> str:
    names = value.replace(" ", "")
    if not all(_HOST.fullmatch(name) for name in names.split(",")):
        raise ValueError
    return names


class ServeSettings(WorkerSettings):
    """All settings of workers, and the tokens, which workers never hold."""

    serve_token: SecretStr | None = setting(
        None,
        description="Token for `contact-sync serve`, to read and to act; required to serve other machines.",
        rule=_RULE,
        shown=False,
    )
    serve_token_file: Path | None = setting(None, description="Path of a file with that token.", rule="a path")
    serve_read_token: SecretStr | None = setting(
        None,
        description="Token for `contact-sync serve`, only to read.",
        rule=_RULE,
        shown=False,
    )
    serve_read_token_file: Path | None = setting(None, description="Path of a file with that token.", rule="a path")
    serve_hosts: Annotated[str, AfterValidator(_check_hosts)] = setting(
        "",
        description="Names by which people reach the page through a proxy on this machine, separated by commas.",
        rule="host names without scheme and port, separated by commas",
    )

    @property
    def proxied_hosts(self) -> frozenset[str]:
        """The names of `serve_hosts`, in lower case."""
        return frozenset(self.serve_hosts.lower().split(",")) - {""}


class Tokens(NamedTuple):
    """The tokens, read at the start: a new one needs a restart.

    Attributes:
        operator: token for everything; None if nobody may act.
        reader: read-only token; None if there is none.
    """

    operator: str | None
    reader: str | None

    def __repr__(self) -> str:
        """Hides them."""
        return "Tokens(...)"

    @property
    def needed(self) -> bool:
        """Whether users must sign in."""
        return any(self)


def read_tokens(settings: ServeSettings) -> Tokens:
    """Reads the tokens from the settings or from files.

    Raises:
        SettingsError: a token cannot be read, is invalid or set twice, or both are the same. The message shows none.
    """
    operator, reader = _tokens(settings)
    if operator is not None and operator == reader:
        raise SettingsError(f"{variable_of('serve_token')} and {variable_of('serve_read_token')} must differ")
    return Tokens(operator, reader)


def _tokens(settings: ServeSettings) -> Iterator[str | None]:
    for name, value, path in (
        ("serve_token", settings.serve_token, settings.serve_token_file),
        ("serve_read_token", settings.serve_read_token, settings.serve_read_token_file),
    ):
        if value is not None and path is not None:
            raise SettingsError(f"{variable_of(name)} and {variable_of(name + '_file')} are both set: set only one")
        token = None if value is None else value.get_secret_value()
        if path is not None:
            token = _read(path, variable_of(name + "_file"))
        if token is not None and not _FIT.fullmatch(token):
            raise SettingsError(f"{variable_of(name + '_file' if path else name)} must be {_RULE}")
        yield token


def _read(path: Path, variable: str) -> str:
    try:
        return read_bytes(path, _MAX_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}") from None
