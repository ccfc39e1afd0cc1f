"""A worker's settings: what fits together, where the server key comes from, and that ``.env.example`` says it all."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from producers import SettingsError
from producers.settings import variable_of
from worker.cli.session import shown_url
from worker.config.serve import ServeSettings
from worker.config.settings import WorkerSettings, load_worker_settings, read_server_key

EXAMPLE = Path(__file__).parents[3] / ".env.example"
KEY = {"server_key_id": "id", "server_key_secret": "hunter2"}


def load(require_credentials: bool = False, /, **variables: object) -> WorkerSettings:  # noqa: FBT001, FBT002 - a switch
    environ = {variable_of(name): str(value) for name, value in variables.items()}
    return load_worker_settings(environ, None, require_credentials=require_credentials)


def refusal(require_credentials: bool = False, /, **variables: object) -> str:  # noqa: FBT001, FBT002 - the same switch
    with pytest.raises(SettingsError) as caught:
        load(require_credentials, **variables)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


# Values


@pytest.mark.parametrize(
    ("name", "fitting", "unfitting"),
    [
        ("batch_size", ["1", "10000"], ["0", "10001", "1.5", "many"]),
        ("linger_seconds", ["0", "3600"], ["-1", "3601", "nan"]),
        ("request_timeout_seconds", ["0.1", "14"], ["0", "601", "inf"]),
        ("lease_seconds", ["11", "3600"], ["0", "3601"]),
        ("late_seconds", ["0", "1e6"], ["-0.1", "inf", "1e306"]),
        ("backoff_base_seconds", ["0.001", "60"], ["0", "nan", "1e306"]),
        ("backoff_max_seconds", ["0.5"], ["0", "inf", "1e306"]),
        ("ledger_seconds", ["1"], ["0.5", "inf", "1e306"]),
        ("readd", ["resend", "absorb"], ["Resend", "drop"]),
        ("rate", ["auto", "off", "0.001", "20", "1000000"], ["0", "-1", "1000001", "nan", "inf", "AUTO", "many"]),
        ("in_flight", ["auto", "1", "10000"], ["0", "-3", "10001", "1.5", "off"]),
        (
            "broker_url",
            ["redis://h/1", "memory://", "amqp://u:p@h//", "redis://a/1;redis://b/1", "redis+socket:///run/r.sock"],
            ["host:6379", "foo://bar", "redis://h:port/0", "redis://h/first", "redis://a/1;b", "unix://"],
        ),
        (
            "endpoint_url",
            [
                "https://h",
                "https://h:8443/base",
                "http://localhost:8080",
                "http://127.0.0.1:80",
                "http://[::1]:80",
                "https://bücher.de",
            ],
            [
                *("ftp://h", "h", "https://", "http://h:port", "http://a b"),
                *("http://xn--a.com", "http://1.2.3.999", "http://[::zz]"),
            ],
        ),
    ],
)
def test_each_value_has_its_range_and_its_line(name: str, fitting: list[str], unfitting: list[str]) -> None:
    for value in fitting:
        assert str(getattr(load(**{name: value}), name)) in {value, f"{float(value):}" if value[0].isdigit() else value}
    for value in unfitting:
        line = refusal(**{name: value})
        assert line.startswith(f"{variable_of(name)} must be ")
        assert line.count(variable_of(name)) == 1


@pytest.mark.parametrize(
    "url", ["https://u:hunter2@h", "https://hunter2@h", "https://h?key=hunter2", "https://h/#hunter2", "https://h/?"]
)
def test_an_endpoint_url_holds_no_credentials_query_or_fragment(url: str) -> None:
    assert refusal(endpoint_url=url) == (
        "CONTACT_SYNC_ENDPOINT_URL must be an http:// or https:// URL without credentials, query or fragment"
    )


def test_a_line_shows_the_value_as_it_was_given() -> None:
    assert refusal(rate="0") == "CONTACT_SYNC_RATE must be 'auto', 'off', or a number from 0.001 to 1000000, not '0'"
    assert refusal(in_flight="0") == "CONTACT_SYNC_IN_FLIGHT must be 'auto', or a whole number from 1 to 10000, not '0'"


def test_an_endpoint_url_loses_its_last_slash() -> None:
    assert load(endpoint_url="https://h/base/").endpoint_url == "https://h/base"


def test_a_lease_outlives_a_request_by_a_second() -> None:
    assert load(lease_seconds=11, request_timeout_seconds=10).lease_seconds == 11
    assert refusal(lease_seconds=10.9, request_timeout_seconds=10) == (
        "CONTACT_SYNC_LEASE_SECONDS (10.9) must exceed CONTACT_SYNC_REQUEST_TIMEOUT_SECONDS (10) by at least a second"
    )


def test_the_longest_backoff_is_not_less_than_the_first() -> None:
    assert refusal(backoff_base_seconds=2, backoff_max_seconds=1) == (
        "CONTACT_SYNC_BACKOFF_MAX_SECONDS (1) must not be less than CONTACT_SYNC_BACKOFF_BASE_SECONDS (2)"
    )


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "redis://localhost:6379/0"),
        ({"redis_url": "rediss://h/3"}, "rediss://h/3?ssl_cert_reqs=required"),
        ({"redis_url": "unix:///run/r.sock"}, "redis+socket:///run/r.sock"),
        ({"redis_url": "unix:///run/r.sock?db=2"}, "redis+socket:///run/r.sock?virtual_host=2"),
        (
            {"broker_url": "unix://u:p@/run/r.sock?health_check_interval=9&db=2"},
            "redis+socket://u:p@/run/r.sock?virtual_host=2",
        ),
        ({"redis_url": "redis://a", "broker_url": "redis://b"}, "redis://b"),
        ({"redis_url": "redis://:a;b@h/1?db=3&health_check_interval=30"}, "redis://:a%3Bb@h/3"),
        ({"broker_url": "redis://a?db=1;rediss://b/2"}, "redis://a/1;rediss://b/2?ssl_cert_reqs=required"),
        ({"broker_url": "amqp://b//?heartbeat=5"}, "amqp://b//?heartbeat=5"),
    ],
)
def test_the_broker_is_the_same_server_unless_said_otherwise(variables: dict[str, str], url: str) -> None:
    assert load(**variables).celery_broker_url == url


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 5),
        ({"redis_url": "redis://h?health_check_interval=30"}, 30),
        ({"redis_url": "redis://h?health_check_interval=30", "broker_url": "redis://b"}, 5),
        ({"broker_url": "amqp://a;redis://b;redis://c?health_check_interval=9"}, 9),
    ],
)
def test_a_connection_to_the_broker_is_tried_as_often_as_its_url_says(variables: dict[str, str], seconds: int) -> None:
    assert load(**variables).broker_health_check_seconds == seconds


def test_an_option_of_the_brokers_redis_is_refused_by_its_variable() -> None:
    assert refusal(broker_url="redis://h?protocol=3").startswith(
        "CONTACT_SYNC_BROKER_URL has an unknown option protocol"
    )


def test_a_ledger_may_remember_for_good() -> None:
    assert load(ledger_seconds="forever").ledger_forever
    assert not load(ledger_seconds="1e6").ledger_forever


# The server key


def header(key_id: str, secret: str) -> str:
    return base64.b64encode(f"{key_id}:{secret}".encode()).decode()


def test_the_server_key_is_sent_as_the_contract_says_and_never_shown() -> None:
    settings = load(True, **KEY)
    key = read_server_key(settings)
    assert key.header == header("id", "hunter2")
    assert not re.search(f"hunter2|{re.escape(key.header)}", f"{key!r} {key} {settings!r} {settings}")


def test_key_files_are_read_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("first\n")
    (tmp_path / "secret").write_text("  s1\n")
    settings = load(True, server_key_id_file=tmp_path / "id", server_key_secret_file=tmp_path / "secret")
    assert read_server_key(settings).header == header("first", "s1")
    (tmp_path / "secret").write_text("s2")
    assert read_server_key(settings).header == header("first", "s2")


def test_only_what_sends_needs_the_key() -> None:
    assert load().server_key_id is None
    assert refusal(True) == "CONTACT_SYNC_SERVER_KEY_ID is required: set it, or CONTACT_SYNC_SERVER_KEY_ID_FILE"
    assert refusal(True, server_key_id="id") == (
        "CONTACT_SYNC_SERVER_KEY_SECRET is required: set it, or CONTACT_SYNC_SERVER_KEY_SECRET_FILE"
    )


def test_a_key_given_twice_names_both_variables() -> None:
    assert refusal(**KEY, server_key_secret_file="/run/secret") == (
        "CONTACT_SYNC_SERVER_KEY_SECRET and CONTACT_SYNC_SERVER_KEY_SECRET_FILE are both set: set only one"
    )


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"server_key_id": "hunter2:x"},
            "CONTACT_SYNC_SERVER_KEY_ID must not contain ':', which separates the id from the secret",
        ),
        (
            {"server_key_secret": "hunter2\n"},
            "CONTACT_SYNC_SERVER_KEY_SECRET must be one line of printable ASCII characters without blanks",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_refused_wherever_settings_are_read(variables: dict[str, str], line: str) -> None:
    assert refusal(**variables) == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b" \n", "is empty"),
        *(
            (text.encode(), "must be one line of printable ASCII characters without blanks")
            for text in ("hunter2\x00", "hunter2\nhunter2", "hun ter2", "hun\tter2", "hunter2\xa0", "hunter2\u200b")
        ),
        *(
            (text.encode(), "must be one line of printable ASCII characters without blanks")
            for text in ("\u2060hunter2", "hun\u00adter2", "hünter2", "hunter2\ufeff", "\u2028hunter2")
        ),
        (b"\xef\xbb\xbfhunter2\r\n", "printable ASCII characters without blanks: it begins with a byte order mark"),
        (b"hunter2\xff", "is not UTF-8 text"),
        (b"hunter2" * 10_000, "is longer than 65536 bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_key_file_that_does_not_fit_is_refused_without_showing_it(
    tmp_path: Path, content: bytes | None, line: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    said = refusal(True, server_key_id="id", server_key_secret_file=path)
    assert said.startswith("CONTACT_SYNC_SERVER_KEY_SECRET_FILE")
    assert said.endswith(line)


def test_a_pipe_is_no_key_file_since_nobody_may_ever_write_into_it(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "secret")
    said = refusal(True, server_key_id="id", server_key_secret_file=path)
    assert said == f"CONTACT_SYNC_SERVER_KEY_SECRET_FILE: {path} cannot be read: Is a pipe"


# .env.example


def test_the_example_lists_every_variable_with_its_default_and_what_it_is_for() -> None:
    blocks = re.findall(r"^# (.+)\n(CONTACT_SYNC_\w+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = [
        (field.description, variable_of(name), _spelled(field.default))
        for name, field in ServeSettings.model_fields.items()
    ]
    assert blocks == expected


def test_the_example_lists_nothing_else_and_loads_as_the_defaults() -> None:
    assert set(dotenv_values(EXAMPLE)) == {variable_of(name) for name in ServeSettings.model_fields}
    assert load_worker_settings({}, EXAMPLE, require_credentials=False) == WorkerSettings()


def _spelled(default: object) -> str:
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def test_ipv6_addresses_may_stand_among_the_hosts_of_a_url() -> None:
    """Newer Pythons refuse them in `urlsplit`, wherever they do not come first."""
    url = "redis+sentinel://me:p@one,[::1]:5/main/3"
    given = {"CONTACT_SYNC_REDIS_URL": url, "CONTACT_SYNC_BROKER_URL": url}
    settings = load_worker_settings(given, None, require_credentials=False)
    assert settings.celery_broker_url == "sentinel://me:p@one:26379/3;sentinel://[::1]:5"
    assert shown_url(url) == "redis+sentinel://one,[::1]:5/main/3"
