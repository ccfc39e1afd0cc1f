"""Reads URLs of Redis: one server, the master that sentinels name, or a cluster. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from producers.contract.redis_url import split_url

SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
"""Every scheme that a URL of Redis may have."""

SENTINEL_PORT: Final = 26379
REDIS_PORT: Final = 6379
_PORT_MAX: Final = 65_535

_DATABASE: Final = re.compile(r"/?[0-9]*/?")
_HOST: Final = re.compile(r"\[[0-9a-fA-F:.]+\]|[^\[\]:@/?#,\s]+")


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        host: name or address, without brackets.
        port: of TCP.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RedisURL(NamedTuple):
    """What a URL of Redis says.

    Attributes:
        kind: one server, the master that sentinels name, or a cluster.
        single: the URL of one server with the same user, password, database and options: redis-py reads these from it.
            Its host is the first of `addresses`.
        addresses: of the sentinels, or of some nodes of the cluster; empty for one server.
        master: the name that the sentinels know the master by; else empty.
    """

    kind: Literal["single", "sentinel", "cluster"]
    single: str
    addresses: tuple[Address, ...] = ()
    master: str = ""


def parse_redis_url(url: str) -> RedisURL:
    """Returns what the URL says; redis-py checks the user, the password and the options.

    Raises:
        ValueError: it is not a URL of Redis. The error repeats nothing of it.
    """
    parts = split_url(url)
    scheme, _, kind = parts.scheme.partition("+")
    # redis-py takes schemes in lower case only; it silently drops what follows a #, even half a password.
    if not url.startswith(tuple(f"{each}://" for each in SCHEMES)) or "#" in url:
        raise ValueError("unknown scheme")
    if not kind:
        _checked(url)
        if scheme == "unix":
            if not parts.path.strip("/"):
                raise ValueError("the path of the socket is missing")
            return RedisURL("single", url)
        if not _DATABASE.fullmatch(parts.path):
            raise ValueError("the path must be the number of a database")  # redis-py would silently use database 0
        return RedisURL("single", url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    addresses = tuple(_address(each, port) for each in hosts.split(","))
    if kind == "cluster":
        if parts.path not in {"", "/"}:
            raise ValueError("a cluster has one database, and the URL no path")
        single = parts._replace(scheme=scheme, netloc=f"{credentials}{at}{addresses[0]}", path="/")
        return RedisURL("cluster", _checked(single.geturl()), addresses)
    master, _, database = parts.path.removeprefix("/").partition("/")
    if not master or not re.fullmatch(r"[0-9]*", database):
        raise ValueError("the path must be the name of a master and the number of a database")
    single = parts._replace(scheme=scheme, netloc=f"{credentials}{at}{addresses[0]}", path=f"/{database}")
    return RedisURL("sentinel", _checked(single.geturl()), addresses, master)


def _checked(url: str) -> str:
    """The URL of one server: several hosts hide from `split_url` what is refused in a user, a password or a host."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        # The original shows what stands there, which may be the password.
        raise ValueError("the user, password, host or port is invalid") from None
    return url


def _address(text: str, default_port: int) -> Address:
    host = _HOST.match(text)
    port = text[host.end() :] if host else ""
    if host is None or not re.fullmatch(r"(:[0-9]{1,5})?", port) or int(port[1:] or 1) > _PORT_MAX:
        raise ValueError("a host must be NAME or NAME:PORT")
    return Address(host[0].strip("[]"), int(port[1:]) if port else default_port)
