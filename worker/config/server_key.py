"""Reads the endpoint's server key from the settings, or from files, which are read again at each call."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from producers.contract.errors import SettingsError
from producers.settings import variable_of
from worker.config.file import read_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

_MAX_BYTES: Final = 65536  # a key file longer than this is some other file
_FIT = re.compile(r"[\x21-\x7e]+")  # an editor's byte order mark or a pasted zero-width character is not seen otherwise
_BLANKS = " \t\r\n"


class ServerKeySettings(Protocol):
    """The settings that hold the server key: each half as a value or as a path, not both."""

    @property
    def server_key_id(self) -> SecretStr | None: ...  # noqa: D102 - named in docs/reference/contract.md, section 5
    @property
    def server_key_id_file(self) -> Path | None: ...  # noqa: D102 - the same
    @property
    def server_key_secret(self) -> SecretStr | None: ...  # noqa: D102 - the same
    @property
    def server_key_secret_file(self) -> Path | None: ...  # noqa: D102 - the same


@dataclass(frozen=True, slots=True)
class ServerKey:
    """The endpoint's credentials, ready to send and hidden from print and logs.

    Attributes:
        header: value of the ``Server-Key`` header: base64 of ``ID:SECRET`` (docs/reference/contract.md, section 1).
    """

    header: str = field(repr=False)


def read_server_key(settings: ServerKeySettings) -> ServerKey:
    """Reads the current server key: a replaced file counts from the next call on.

    Raises:
        SettingsError: a half is missing, unreadable or invalid. One line, which never shows it.
    """
    key_id = _half("server_key_id", settings.server_key_id, settings.server_key_id_file)
    secret = _half("server_key_secret", settings.server_key_secret, settings.server_key_secret_file)
    return ServerKey(base64.b64encode(f"{key_id}:{secret}".encode()).decode())


def check_server_key_values(settings: ServerKeySettings) -> None:
    """Checks the values in the settings themselves; files are read only when the key is.

    Raises:
        SettingsError: a value is invalid, or a half is given as a value and as a file.
    """
    for name, value, path in (
        ("server_key_id", settings.server_key_id, settings.server_key_id_file),
        ("server_key_secret", settings.server_key_secret, settings.server_key_secret_file),
    ):
        if value is None:
            continue
        if path is not None:
            raise SettingsError(f"{variable_of(name)} and {variable_of(name + '_file')} are both set: set only one")
        _half(name, value, None)


def check_half(variable: str, text: str) -> None:
    """Checks the characters of a half of the key.

    Raises:
        SettingsError: it has others than printable ASCII ones. The line never shows it.
    """
    if not _FIT.fullmatch(text):
        mark = ": it begins with a byte order mark" if text.startswith("\ufeff") else ""
        raise SettingsError(f"{variable} must be one line of printable ASCII characters without blanks{mark}")


def read_half(path: Path, variable: str) -> str:
    """Reads a half of the key from a file, without the blanks around it.

    Args:
        path: of the file.
        variable: the setting or option that names it, for the message.

    Raises:
        SettingsError: the file cannot be read, or holds something else.
    """
    try:
        content = read_bytes(path, _MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SettingsError(f"{variable}: {path} is longer than {_MAX_BYTES} bytes")
        return content.decode().strip(_BLANKS)
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is not UTF-8 text") from None


def _half(name: str, value: SecretStr | None, path: Path | None) -> str:
    if path is not None:
        variable = variable_of(name + "_file")
        text = read_half(path, variable)
    elif value is not None:
        variable = variable_of(name)
        text = value.get_secret_value()
    else:
        raise SettingsError(f"{variable_of(name)} is required: set it, or {variable_of(name + '_file')}")
    if not text:
        raise SettingsError(f"{variable} is empty")
    check_half(variable, text)
    if name == "server_key_id" and ":" in text:
        raise SettingsError(f"{variable} must not contain ':', which separates the id from the secret")
    return text
