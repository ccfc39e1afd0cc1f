"""The environment of a worker and of `serve`: settings, or one line that names the variable and shows no secret."""

from __future__ import annotations

from typing import Final

from producers.contract.errors import SettingsError
from producers.settings import ProducerSettings, load_settings
from tests.fuzz.target import SECRET, Target, one_line, shows_secret
from worker.config.serve import ServeSettings, read_tokens
from worker.config.server_key import read_server_key

_SECRETS: Final = tuple(
    f"CONTACT_SYNC_{each}" for each in ("SERVER_KEY_ID", "SERVER_KEY_SECRET", "SERVE_TOKEN", "SERVE_READ_TOKEN")
)
_URLS: Final = ("CONTACT_SYNC_REDIS_URL", "CONTACT_SYNC_BROKER_URL")


def _is_fit(error: SettingsError, environ: dict[str, str]) -> None:
    """Checks that an error is one line, names a variable and shows no secret."""
    one_line(error)
    others = "".join(value for name, value in environ.items() if name not in _SECRETS + _URLS)
    if SECRET not in others:
        assert not shows_secret(error, *(environ.get(each, "") for each in _URLS)), "an error shows a secret"
    assert "CONTACT_SYNC_" in str(error), "an error names no variable"


def run(data: bytes) -> str:
    """A variable a line; the prefix of the names is left out."""
    lines = (line.decode("utf-8", "surrogateescape").partition("=") for line in data.split(b"\n"))
    # Nothing that reads a file: a fuzzer would find the devices.
    environ = {f"CONTACT_SYNC_{name}": value for name, _, value in lines if "FILE" not in name and "ssl_" not in value}
    try:
        load_settings(ProducerSettings, environ, None)
        settings = load_settings(ServeSettings, environ, None)
    except SettingsError as error:
        _is_fit(error, environ)
        return "refused"
    assert settings.celery_broker_url
    assert settings.broker_health_check_seconds > 0
    assert isinstance(settings.broker_sentinel_options, dict)
    assert settings.broker_tls is None or settings.broker_tls["ssl_cert_reqs"] == "required"
    try:
        assert SECRET not in repr(read_tokens(settings))
        settings.check_broker_given()
        read_server_key(settings)
    except SettingsError as error:
        _is_fit(error, environ)
        return "settings that do not fit"
    return "settings"


_KEY: Final = b"SERVER_KEY_ID=id\nSERVER_KEY_SECRET=s3cr3t\n"

TARGET: Final = Target(
    "environments",
    "the variables of a worker and of serve",
    run,
    frozenset({"refused", "settings", "settings that do not fit"}),
    [
        _KEY,
        b"REDIS_URL=redis+sentinel://:s3cr3t@a,b/m/1?sentinel_password=s3cr3t",
        _KEY + b"REDIS_URL=redis+cluster://a:1\nBROKER_URL=memory://",
        _KEY + b"BROKER_URL=sentinel://:s3cr3t@a:1;sentinel://b:2\nBROKER_MASTER=m",
        b"ENDPOINT_URL=http://x.example\nENDPOINT_INSECURE=allow\nRATE=auto\nIN_FLIGHT=8\nLEDGER_SECONDS=forever",
        b"LEASE_SECONDS=1\nREQUEST_TIMEOUT_SECONDS=9\nBACKOFF_MAX_SECONDS=0.1",
        b"SERVE_TOKEN=s3cr3t-s3cr3t-s3cr3t\nSERVE_HOSTS=a.example,b\nWAIT_REPLICAS=all\nPARTITIONS=8\nNAMESPACE=x:y",
        b"BATCH_SIZE=nan\nLINGER_SECONDS=inf",
    ],
    [
        b"REDIS_URL=",
        b"BROKER_URL=",
        b"BROKER_MASTER=",
        b"ENDPOINT_URL=",
        b"ENDPOINT_INSECURE=",
        b"RATE=",
        b"IN_FLIGHT=",
        b"LEDGER_SECONDS=",
        b"READD=",
        b"NAMESPACE=",
        b"PARTITIONS=",
        b"WAIT_REPLICAS=",
        b"SERVE_TOKEN=",
        b"SERVE_HOSTS=",
        b"SERVER_KEY_ID=",
        b"SERVER_KEY_SECRET=",
        b"REDIS_CREDENTIALS=a:b",
        b"BATCH_SIZE=",
        b"s3cr3t",
        b"1e999",
        b"nan",
        b"redis://",
        b"amqp://",
        b"https://",
        b"sentinel://",
        b"\xc2\xad",
        b"[::1]",
        b"%",
        b"xn--",
    ],
)
