"""A broker whose master sentinels name, in kombu's form: URLs of the sentinels, and the rest as options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

from redis.backoff import NoBackoff
from redis.retry import Retry

from producers.contract.redis_url import split_url
from producers.nodes.connect import pool_options
from producers.nodes.credentials import FunctionCredentials
from producers.nodes.sentinel import SENTINEL_SECONDS
from producers.nodes.url import parse_redis_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS: Final = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}


class BrokerCredentials(FunctionCredentials):
    """Those of the log's Redis, if it is the broker, too. kombu makes it from its name, and gives it nothing.

    Attributes:
        function: CONTACT_SYNC_REDIS_CREDENTIALS of this process.
    """

    function: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__(self.function)


def with_credentials(kombu_url: str) -> str:
    """Returns a broker's URL as kombu takes it, with the name of that class."""
    first, *others = kombu_url.split(";")
    mark = "&" if "?" in first else "?"
    return ";".join([f"{first}{mark}credential_provider={__name__}:{BrokerCredentials.__name__}", *others])


def is_sentinel_url(url: str) -> bool:
    """Whether it is a URL of ours that names sentinels."""
    return split_url(url).scheme in {"redis+sentinel", "rediss+sentinel"}


def kombu_sentinel_url(url: str) -> str:
    """Returns a URL of ours as kombu takes it: one URL for each sentinel, with ``;`` between them."""
    parsed = parse_redis_url(url)
    credentials, at, _ = urlsplit(parsed.single).netloc.rpartition("@")
    path = f"/{pool_options(url).get('db', 0)}"
    first, *others = parsed.addresses
    return ";".join([f"sentinel://{credentials}{at}{first}{path}", *(f"sentinel://{each}" for each in others)])


def sentinel_options(master: str, asking: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of kombu's transport.

    Args:
        master: the name that the sentinels know the master by.
        asking: options of the connections to the sentinels.
    """
    # By default redis-py asks a dead sentinel ten times, and waits half a minute for one that hangs.
    return {"master_name": master, "sentinel_kwargs": {**_SECONDS, "retry": Retry(NoBackoff(), 0), **asking}}
