"""The options that a Redis URL may have behind its ``?``: one list for every part (the contract, section 5).

redis-py and kombu each know more, and each other ones: what one of them takes would end or confuse the other. So every
option that is not in the list is refused, at the start, in one line.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from producers.contract.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class UrlOption(NamedTuple):
    """An option of a Redis URL.

    Attributes:
        rule: what its value must be; the end of the sentence "the option NAME must be ...".
        read: returns the value as redis-py takes it, or raises ValueError.
        tls: whether it needs a URL with TLS.
        sentinel: whether it needs a URL that names sentinels.
    """

    rule: str
    read: Callable[[str], int | str | bool]
    tls: bool = True
    sentinel: bool = False


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_CA_RULE: Final = "a readable file of certificates in PEM form"
_CERTIFICATE_RULE: Final = "a readable certificate in PEM form, with its key in it or in ssl_keyfile"


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not _DIGITS.fullmatch(value) or not least <= int(value) <= most:
            raise ValueError
        return int(value)

    return read


def _required(value: str) -> str:
    if value != "required":
        raise ValueError
    return value


def _true(value: str) -> bool:
    if value != "true":
        raise ValueError
    return True


def _text(value: str) -> str:
    if not value:
        raise ValueError
    return value


OPTIONS: Final[Mapping[str, UrlOption]] = {
    # Before the database in the path, as redis-py has it.
    "db": UrlOption("a whole number from 0 to 2147483647", _whole(0, 2**31 - 1), tls=False),
    "health_check_interval": UrlOption("a whole number of seconds from 1 to 86400", _whole(1, 86_400), tls=False),
    "sentinel_password": UrlOption("the password of the sentinels", _text, tls=False, sentinel=True),
    "sentinel_username": UrlOption("the user of the sentinels", _text, tls=False, sentinel=True),
    "ssl_ca_certs": UrlOption(_CA_RULE, str),
    "ssl_cert_reqs": UrlOption("required", _required),
    "ssl_certfile": UrlOption(_CERTIFICATE_RULE, str),
    "ssl_check_hostname": UrlOption("true", _true),
    "ssl_keyfile": UrlOption("a readable key in PEM form", str),
}
"""Every option that a Redis URL may have."""


_LISTED: Final = re.compile(r"([a-z+]+)://([^/?#]*,[^/?#]*)(.*)", re.DOTALL)


def split_url(url: str) -> SplitResult:
    """Splits a URL that may name several hosts, which `urlsplit` takes for one, and refuses if one of them is IPv6.

    Raises:
        ValueError: it is not a URL. The error repeats nothing of it.
    """
    listed = _LISTED.fullmatch(url)
    try:
        if listed is None:
            return urlsplit(url)
        scheme, hosts, rest = listed.groups()
        return urlsplit(f"{scheme}://{rest}")._replace(netloc=hosts)
    except ValueError:
        raise ValueError("it is not a URL") from None  # urlsplit's own shows user and password


def read_options(url: str, name: str) -> dict[str, Any]:
    """Returns the options behind a Redis URL's ``?``, each as redis-py's argument of that name.

    Args:
        url: of Redis, in any of the schemes that CONTACT_SYNC_REDIS_URL takes.
        name: the variable or argument that holds the URL, for the message.

    Raises:
        SettingsError: an option is unknown or given twice, or its value is invalid. The line never shows a value.
    """
    parts = split_url(url)
    options: dict[str, Any] = {}
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        if option not in OPTIONS:
            raise SettingsError(_unknown(name, option, parts.query))
        if option in options:
            raise SettingsError(f"{name}: the option {option} must be given once")
        known = OPTIONS[option]
        if known.tls and not parts.scheme.startswith("rediss"):
            raise SettingsError(f"{name}: the option {option} needs a rediss:// URL")
        if known.sentinel and not parts.scheme.endswith("+sentinel"):
            raise SettingsError(f"{name}: the option {option} needs a redis+sentinel:// URL")
        if option == "db" and parts.scheme.endswith("+cluster"):
            raise SettingsError(f"{name}: a cluster has one database, and its URL no option db")
        try:
            options[option] = known.read(value)
        except ValueError:
            raise SettingsError(f"{name}: the option {option} must be {known.rule}") from None
    _check_files(options, name)
    return options


def _unknown(name: str, option: str, query: str) -> str:
    known = f"known are {', '.join(OPTIONS)}"
    # A password with a ? in it ends at that character: what follows may be the rest of it.
    if f"{option}=" in query and "@" not in query and _NAME.fullmatch(option):
        return f"{name} has an unknown option {option}: {known}"
    return f"{name} has an unknown option: {known}; a ? in a user or password is written %3F"


def _check_files(options: Mapping[str, Any], name: str) -> None:
    """Loads the certificates, because a client that cannot load them would take Redis for away, forever."""
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise SettingsError(f"{name}: the option ssl_keyfile needs ssl_certfile")
    if not {"ssl_ca_certs", "ssl_certfile"} & options.keys():
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "ssl_ca_certs" in options:
        try:
            context.load_verify_locations(cafile=options["ssl_ca_certs"])
        except (OSError, ValueError):  # SSLError is an OSError
            raise SettingsError(f"{name}: the option ssl_ca_certs must be {_CA_RULE}") from None
    if "ssl_certfile" in options:
        try:
            # Without a password OpenSSL would ask the terminal for one.
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), password="")
        except (OSError, ValueError):
            raise SettingsError(f"{name}: the option ssl_certfile must be {_CERTIFICATE_RULE}") from None
