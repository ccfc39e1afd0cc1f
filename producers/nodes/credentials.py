"""User and password from a function of the app, for services whose tokens expire: asked for each new connection."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.credentials import CredentialProvider

from producers.contract.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE: Final = "CONTACT_SYNC_REDIS_CREDENTIALS"


class BadCredentialsError(redis.AuthenticationError):
    """The function returned something else than credentials, so Redis was not asked."""


class FunctionCredentials(CredentialProvider):
    """What a function returns: a password, or a user and a password.

    Args:
        name: `package.module:function`.

    Raises:
        SettingsError: there is no such function.
    """

    def __init__(self, name: str) -> None:
        self._function = _function_of(name)

    def get_credentials(self) -> Any:
        """Asks the function.

        Raises:
            redis.ConnectionError: it failed; its error may hold a secret, and is not repeated.
            BadCredentialsError: it returned something else.
        """
        try:
            found = self._function()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next connection asks again
            raise redis.ConnectionError(f"the function of {VARIABLE} failed: {type(error).__name__}") from None
        words = (found,) if isinstance(found, str) else found
        if not isinstance(words, tuple) or len(words) not in {1, 2} or not all(isinstance(each, str) for each in words):
            raise BadCredentialsError(f"the function of {VARIABLE} must return a password, or a user and a password")
        return words

    async def get_credentials_async(self) -> Any:
        """Asks the function in a thread: it may wait for a network."""
        return await asyncio.to_thread(self.get_credentials)


def credentials_options(name: str | None) -> dict[str, Any]:
    """Returns the option of redis-py's connections; empty without a function.

    Raises:
        SettingsError: there is no such function.
    """
    return {} if name is None else {"credential_provider": FunctionCredentials(name)}


def _function_of(name: str) -> Callable[[], Any]:
    module, _, function = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except Exception as error:  # noqa: BLE001 - whatever a foreign module does as it is loaded
        raise SettingsError(f"{VARIABLE}: {name} cannot be loaded ({type(error).__name__})") from None
    if not callable(found):
        raise SettingsError(f"{VARIABLE}: {name} is not a function")
    return found  # type: ignore[no-any-return] # what it returns is checked at each call
