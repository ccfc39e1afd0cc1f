"""Finds the key that a stand-in endpoint started by hand accepts: the one that its workers have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from producers.contract.errors import SettingsError
from producers.settings import read_dotenv
from worker.config.server_key import check_half, read_half
from worker.standin.settings import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_ID = "CONTACT_SYNC_SERVER_KEY_ID"
KEY_SECRET = "CONTACT_SYNC_SERVER_KEY_SECRET"  # noqa: S105 - the name of a variable, not a secret


class KeyInputError(Exception):
    """The key cannot be used. The text is one line that names variable and rule, and never holds the key."""


def stand_in_key(key_id: str | None, key_secret_file: Path | None) -> tuple[str, str]:
    """Returns the id and secret to accept: from the options, else the environment, else `.env`, else the default.

    Args:
        key_id: the id from an option; None if not given.
        key_secret_file: path of a file with the secret, from an option; None if not given.

    Raises:
        KeyInputError: a file cannot be read, or a value is empty, invalid or set in two ways.
        SettingsError: the file `.env` cannot be read.
    """
    variables = {**read_dotenv(), **os.environ}
    if key_id is None:
        name, identifier = KEY_ID, _configured(variables, KEY_ID)
    else:
        name, identifier = "--key-id", key_id and _checked("--key-id", key_id)  # an empty one accepts any
    if ":" in identifier:
        raise KeyInputError(f"{name}: must not contain a colon, which separates id and secret")
    if key_secret_file is not None:
        return identifier, _read("--key-secret-file", key_secret_file)
    return identifier, _configured(variables, KEY_SECRET)


def _configured(variables: Mapping[str, str | None], name: str) -> str:
    value, path = variables.get(name), variables.get(f"{name}_FILE")
    if value and path:
        raise KeyInputError(f"{name} and {name}_FILE: only one of them may be set")
    if value:
        return _checked(name, value)
    return _read(f"{name}_FILE", Path(path)) if path else DEFAULT_KEY


def _read(name: str, path: Path) -> str:
    try:
        value = read_half(path, name)
    except SettingsError as error:
        raise KeyInputError(str(error)) from None
    if not value:
        raise KeyInputError(f"{name}: {path} must not be empty")
    return _checked(name, value)


def _checked(name: str, value: str) -> str:
    try:
        check_half(name, value)
    except SettingsError as error:
        raise KeyInputError(str(error)) from None
    return value
