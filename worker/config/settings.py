"""Reads a worker's settings from the environment or a ``.env`` file (docs/reference/contract.md, section 5)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from producers.contract.errors import SettingsError
from producers.contract.redis_url import read_options, split_url
from producers.nodes.connect import is_cluster
from producers.nodes.url import parse_redis_url
from producers.settings import ProducerSettings, check_redis_url, check_verifies, load_settings, setting, variable_of
from worker.config.broker import is_sentinel_url, kombu_sentinel_url, sentinel_options, with_credentials
from worker.config.server_key import ServerKey, check_server_key_values, read_server_key

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ServerKey", "WorkerSettings", "load_worker_settings", "read_server_key"]

LEASE_MARGIN_SECONDS: Final = 1.0
"""How much longer a lease must be than a request, so that its outcome is settled before another worker takes over."""

LONGEST_SECONDS: Final = 3_153_600_000
"""A hundred years: long enough for "forever", and no time overflows in Redis."""

_REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
_BROKER_HEALTH_CHECK_SECONDS: Final = 5
_CREDENTIALS: Final = ("username", "password")

_PLAIN_HOST: Final = re.compile(r"(?!.*xn--)(?=.*[a-z])[a-z0-9_.-]+")


def _check_endpoint_url(value: str) -> str:
    parts = urlsplit(value)
    in_it = parts.username is not None or parts.password is not None or "?" in value or "#" in value
    if parts.scheme not in {"http", "https"} or not parts.hostname or in_it or not value.isprintable() or " " in value:
        raise ValueError
    _ = parts.port  # raises ValueError if the port is invalid
    if not _PLAIN_HOST.fullmatch(parts.hostname):
        _check_unusual_host(value)
    return value.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by name or address."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_unusual_host(url: str) -> None:
    """Checks an address or an international name with the HTTP client, which must understand it."""
    import httpx  # noqa: PLC0415 - slow to load, and most hosts are plain names

    try:
        _ = httpx.URL(url).host
    except (httpx.InvalidURL, UnicodeError):  # idna's own errors are UnicodeErrors
        raise ValueError from None


def _check_broker_url(value: str) -> str:
    from kombu.transport import TRANSPORT_ALIASES  # noqa: PLC0415 - slow to load, and usually the broker is the log's Redis

    for url in value.split(";"):  # Celery separates the URLs of a broker that fails over like this
        scheme = split_url(url).scheme
        if "://" not in url or (scheme != "unix" and scheme.partition("+")[0] not in TRANSPORT_ALIASES):
            raise ValueError
        if not is_sentinel_url(url):
            _ = urlsplit(url).port  # raises ValueError if the port is invalid
        check_verifies(url, variable_of("broker_url"))
        if scheme in _REDIS_SCHEMES or is_sentinel_url(url):
            check_redis_url(url, variable_of("broker_url"))
    if ";" in value and is_sentinel_url(value):
        raise ValueError  # one URL names all sentinels
    return value


def _seconds(default: float, *, description: str, rule: str, **constraints: Any) -> Any:
    """A duration in seconds; infinity and NaN are invalid."""
    return setting(
        default, description=description, rule=f"a number of seconds, {rule}", allow_inf_nan=False, **constraints
    )


def _or_forever(value: object) -> object:
    """Turns `forever` into a hundred years, so that the ledger never rotates."""
    return LONGEST_SECONDS if value == "forever" else value


_Rate = Annotated[float, Field(ge=0.001, le=1e6)]
_InFlight = Annotated[int, Field(ge=1, le=10_000)]


def _check_rate(value: object) -> object:
    """`auto`, `off`, or requests a second."""
    return value if value in {"auto", "off"} else float(str(value))


def _check_in_flight(value: object) -> object:
    """`auto`, or a number of requests."""
    return value if value == "auto" else int(str(value))


class WorkerSettings(ProducerSettings):
    """All settings of a worker. Immutable; durations in seconds."""

    broker_url: Annotated[str, AfterValidator(_check_broker_url)] | None = setting(
        None,
        description="Celery's broker; if unset, the server of CONTACT_SYNC_REDIS_URL. With a cluster it must be set; "
        "memory:// means none.",
        rule="a broker URL as Celery knows them, such as redis://host:6379/1",
        shown=False,
    )
    broker_master: str | None = setting(
        None,
        description="Name of the master that the sentinels of a sentinel:// broker know; needed there, and only there.",
        rule="1 to 64 letters, digits and -_.",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",  # as Sentinel itself
    )
    endpoint_url: Annotated[str, AfterValidator(_check_endpoint_url)] = setting(
        "https://taptalk.io",
        description="Base URL of the endpoint that receives the contacts.",
        rule="an http:// or https:// URL without credentials, query or fragment",
        shown=False,  # because the mistake may be a password in it
    )
    endpoint_insecure: Literal["refuse", "allow"] = setting(
        "refuse",
        description="Whether http:// to another machine is allowed: anybody on the way can read the server key.",
        rule="'refuse' or 'allow'",
    )
    server_key_id: SecretStr | None = setting(
        None,
        description="Id of the endpoint's server key; required by workers, here or in a file.",
        rule="printable ASCII characters without blanks or ':'",
        shown=False,
    )
    server_key_id_file: Path | None = setting(
        None,
        description="Path of a file with the id of the server key; read again before each probe of a held endpoint.",
        rule="a path",
    )
    server_key_secret: SecretStr | None = setting(
        None,
        description="Secret of the endpoint's server key; required by workers, here or in a file.",
        rule="printable ASCII characters without blanks",
        shown=False,
    )
    server_key_secret_file: Path | None = setting(
        None,
        description="Path of a file with the secret of the key; read again before each probe of a held endpoint.",
        rule="a path",
    )
    batch_size: int = setting(
        500,
        description="Maximum number of records in a request.",
        rule="a whole number from 1 to 10000",
        ge=1,
        le=10000,
    )
    linger_seconds: float = _seconds(
        1.0,
        description="Maximum time that the oldest change waits for others to join its request.",
        rule="0 to 3600",
        ge=0,
        le=3600,
    )
    delete_linger_seconds: float = _seconds(
        0.1,
        description="The same for the oldest delete; if it is longer than linger, linger counts.",
        rule="0 to 3600",
        ge=0,
        le=3600,
    )
    request_timeout_seconds: float = _seconds(
        10.0,
        description="Maximum time of a whole request, from connect to last byte.",
        rule="more than 0 to 600",
        gt=0,
        le=600,
    )
    connections: Literal["reuse", "once"] = setting(
        "reuse",
        description="Whether a connection to the endpoint serves many requests (reuse), or one and is closed (once).",
        rule="'reuse' or 'once'",
    )
    lease_seconds: float = _seconds(
        15.0,
        description="How long a worker holds a partition; must exceed the request timeout by at least a second.",
        rule="more than 0 to 3600",
        gt=0,
        le=3600,
    )
    late_seconds: float = _seconds(
        30.0,
        description="How long after its deadline an unanswered request may still act at the endpoint.",
        rule=f"0 to {LONGEST_SECONDS}",
        ge=0,
        le=LONGEST_SECONDS,
    )
    backoff_base_seconds: float = _seconds(
        0.5,
        description="Wait before the first retry; doubled for each further retry.",
        rule=f"more than 0 to {LONGEST_SECONDS}",
        gt=0,
        le=LONGEST_SECONDS,
    )
    backoff_max_seconds: float = _seconds(
        60.0,
        description="Maximum wait between retries; not less than the base.",
        rule=f"more than 0 to {LONGEST_SECONDS}",
        gt=0,
        le=LONGEST_SECONDS,
    )
    retry_after_max_seconds: float = _seconds(
        3600.0,
        description="Longest Retry-After of the endpoint that is obeyed.",
        rule=f"0 to {LONGEST_SECONDS}",
        ge=0,
        le=LONGEST_SECONDS,
    )
    rate: Annotated[Literal["auto", "off"] | _Rate, BeforeValidator(_check_rate)] = setting(
        "auto",
        description="Most requests a second of the whole fleet: auto learns it from the endpoint, off sets none.",
        rule="'auto', 'off', or a number from 0.001 to 1000000",
    )
    in_flight: Annotated[Literal["auto"] | _InFlight, BeforeValidator(_check_in_flight)] = setting(
        "auto",
        description="Most requests under way at once in the whole fleet: auto finds it from latency and failures.",
        rule="'auto', or a whole number from 1 to 10000",
    )
    ledger_seconds: Annotated[float, BeforeValidator(_or_forever)] = _seconds(
        3600.0,
        description="Minimum time that a confirmed outcome is remembered; or forever.",
        rule=f"1 to {LONGEST_SECONDS}, or 'forever'",
        ge=1,
        le=LONGEST_SECONDS,
    )
    readd: Literal["resend", "absorb"] = setting(
        "resend",
        description="An upsert known to be later than a delete: resend it after the delete, or absorb it.",
        rule="'resend' or 'absorb'",
    )
    unknown_refusal: Literal["park", "hold"] = setting(
        "park",
        description="A record that the endpoint refuses with an unknown code: park it, or hold the endpoint.",
        rule="'park' or 'hold'",
    )

    inbox_map: Path | None = setting(
        None,
        description="Path of a TOML file by which the inbox reads rows as change data capture writes them.",
        rule="a path",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.lease_seconds < self.request_timeout_seconds + LEASE_MARGIN_SECONDS:
            raise SettingsError(
                f"{variable_of('lease_seconds')} ({self.lease_seconds:g}) must exceed "
                f"{variable_of('request_timeout_seconds')} ({self.request_timeout_seconds:g}) by at least a second",
            )
        if self.backoff_max_seconds < self.backoff_base_seconds:
            raise SettingsError(
                f"{variable_of('backoff_max_seconds')} ({self.backoff_max_seconds:g}) must not be less than "
                f"{variable_of('backoff_base_seconds')} ({self.backoff_base_seconds:g})",
            )
        leaves = self.endpoint_url.startswith("http:") and not is_loopback(self.endpoint_url)
        if leaves and self.endpoint_insecure == "refuse":
            raise SettingsError(
                f"{variable_of('endpoint_url')} must be https:// for another machine, "
                f"or set {variable_of('endpoint_insecure')}=allow"
            )
        if (self.broker_master is None) is split_url(self.broker_url or "").scheme.startswith("sentinel"):
            raise SettingsError(
                f"{variable_of('broker_master')} must name the master, for the sentinels in {variable_of('broker_url')}"
                if self.broker_master is None
                else f"{variable_of('broker_master')} needs a {variable_of('broker_url')} with sentinel://"
            )
        check_server_key_values(self)
        return self

    @property
    def ledger_forever(self) -> bool:
        """Whether confirmed outcomes are remembered for good."""
        return self.ledger_seconds >= LONGEST_SECONDS

    @property
    def celery_broker_url(self) -> str:
        """The broker's URL in kombu's form. kombu knows fewer options than a Redis URL may have, and other names.

        kombu verifies the certificate of a ``rediss://`` only if the URL says so, so ours always does.
        """
        if self.broker_url is None:
            url = _kombu_url(self.redis_url.replace(";", "%3B"), "redis_url")  # kombu would take it for two URLs
            return url if self.redis_credentials is None else with_credentials(url)
        return ";".join(_kombu_url(url, "broker_url") for url in self.broker_url.split(";"))

    @property
    def broker_health_check_seconds(self) -> int:
        """How long a connection to the broker may be idle until it is tried: the first that a Redis URL of it names."""
        urls, field = (
            ([self.redis_url], "redis_url") if self.broker_url is None else (self.broker_url.split(";"), "broker_url")
        )
        for url in urls:
            if split_url(url).scheme in _REDIS_SCHEMES or is_sentinel_url(url):
                seconds: int | None = read_options(url, variable_of(field)).get("health_check_interval")
                if seconds is not None:
                    return seconds
        return _BROKER_HEALTH_CHECK_SECONDS

    @property
    def broker_is_memory(self) -> bool:
        """Whether there is no broker: each worker process leaves its hints to itself."""
        return (self.broker_url or "").startswith("memory://")

    @property
    def broker_is_database(self) -> bool:
        """Whether kombu reaches it by SQLAlchemy, whose engine refuses every option that it does not know."""
        return (self.broker_url or "").partition(":")[0].partition("+")[0] in {"sqla", "sqlalchemy"}

    def check_broker_given(self) -> None:
        """Checks that there is a broker: Celery cannot use a cluster as one.

        Raises:
            SettingsError: the log is in a cluster, and no broker is set.
        """
        if self.broker_url is None and is_cluster(self.redis_url):
            raise SettingsError(
                f"{variable_of('broker_url')} is required if {variable_of('redis_url')} is a cluster, which Celery "
                "cannot use: a single Redis, another broker, or memory:// for none"
            )

    @property
    def broker_sentinel_options(self) -> dict[str, Any]:
        """Options of kombu's transport for a broker whose master sentinels name; empty for any other."""
        url = self.broker_url or self.redis_url
        if self.broker_master is not None:
            return sentinel_options(self.broker_master, {})
        if not is_sentinel_url(url):
            return {}
        asking = {"ssl": True, **self.broker_tls} if self.broker_tls is not None else {}
        options = read_options(url, "")
        asking |= {name: options[f"sentinel_{name}"] for name in _CREDENTIALS if f"sentinel_{name}" in options}
        return sentinel_options(parse_redis_url(url).master, asking)

    @property
    def broker_tls(self) -> dict[str, Any] | None:
        """TLS options of such a broker; None without TLS, and for any other, whose URL says it."""
        url = self.broker_url or self.redis_url
        if not url.startswith("rediss+sentinel://"):
            return None
        given = {name: value for name, value in read_options(url, "").items() if name.startswith("ssl_")}
        return {**given, "ssl_cert_reqs": "required"}


def _kombu_url(url: str, field: str) -> str:
    """Returns a broker's URL as kombu takes it: the options of a Redis URL are its own, and kombu refuses most."""
    if is_sentinel_url(url):
        return kombu_sentinel_url(url)
    parts = split_url(url)
    if parts.scheme not in _REDIS_SCHEMES:
        return url
    options = read_options(url, variable_of(field))
    options.pop("health_check_interval", None)  # kombu takes it as an option of the transport
    database = options.pop("db", None)
    if parts.scheme == "unix":
        # For kombu a Redis behind a unix socket is `redis+socket://`, and its database is `virtual_host`.
        return f"redis+socket://{parts.netloc}{parts.path}" + ("" if database is None else f"?virtual_host={database}")
    if parts.scheme == "rediss":
        options["ssl_cert_reqs"] = "required"
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = "true"
    path = parts.path if database is None else f"/{database}"
    return parts._replace(path=path, query=urlencode(options, safe="/")).geturl()


def load_worker_settings(
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
    *,
    require_credentials: bool,
    **given: object,
) -> WorkerSettings:
    """``load_settings`` for workers and the commands beside them.

    Args:
        environ: the environment; None for the environment of the process.
        dotenv: the ``.env`` file, which need not exist; None to read none.
        require_credentials: whether the server key must be set and readable; only a worker needs it.
        given: fields that override all of these.

    Raises:
        SettingsError: a value is invalid. One line names the variable and the rule.
    """
    settings = load_settings(WorkerSettings, environ, dotenv, **given)
    if require_credentials:
        read_server_key(settings)
    return settings
