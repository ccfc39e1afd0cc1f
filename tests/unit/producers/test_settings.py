"""Settings: the environment before ``.env`` before the defaults, and one line for what is invalid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from producers import ProducerSettings, SettingsError, load_settings

if TYPE_CHECKING:
    from pathlib import Path


def load(environ: dict[str, str] | None = None, dotenv: Path | None = None, **given: object) -> ProducerSettings:
    return load_settings(ProducerSettings, environ or {}, dotenv, **given)


@pytest.fixture
def dotenv(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_the_defaults_are_those_of_the_contract() -> None:
    assert load() == ProducerSettings(redis_url="redis://localhost:6379/0", namespace="contact-sync", partitions=None)


def test_the_environment_stands_over_the_file_and_the_caller_over_both(dotenv: Path) -> None:
    dotenv.write_text("CONTACT_SYNC_NAMESPACE=file\nCONTACT_SYNC_PARTITIONS=5\nCONTACT_SYNC_REDIS_URL=redis://file\n")
    settings = load({"CONTACT_SYNC_NAMESPACE": "env", "CONTACT_SYNC_PARTITIONS": "6"}, dotenv, partitions=7)
    assert settings == ProducerSettings(redis_url="redis://file", namespace="env", partitions=7)


def test_an_empty_value_counts_as_unset(dotenv: Path) -> None:
    dotenv.write_text("CONTACT_SYNC_NAMESPACE=file\nCONTACT_SYNC_PARTITIONS=\n")
    assert load({"CONTACT_SYNC_NAMESPACE": ""}, dotenv) == ProducerSettings(namespace="file")


def test_a_dollar_sign_in_the_file_is_a_dollar_sign(dotenv: Path) -> None:
    dotenv.write_text("CONTACT_SYNC_REDIS_URL=redis://:${HOME}@localhost\n")
    assert load({}, dotenv).redis_url == "redis://:${HOME}@localhost"


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTACT_SYNC_NAMESPACE", "outside")
    assert load_settings(ProducerSettings, dotenv=None).namespace == "outside"


def test_variables_of_others_are_left_alone(dotenv: Path) -> None:
    dotenv.write_text("CONTACT_SYNC_BATCH_SIZE=nonsense\nOTHER=1\nCONTACT_SYNC_PARTITIONS\n")
    assert load({"PATH": "/bin", "NAMESPACE": "x"}, dotenv) == ProducerSettings()


RULE = (
    "a URL such as redis://host:6379/0, unix:///path?db=0, redis+sentinel://host:26379,host2:26379/master/0 or "
    "redis+cluster://host:6379,host2:6379"
)


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"PARTITIONS": "0"}, "CONTACT_SYNC_PARTITIONS must be a whole number from 1 to 16384, not '0'"),
        ({"PARTITIONS": "16385"}, "CONTACT_SYNC_PARTITIONS must be a whole number from 1 to 16384, not '16385'"),
        ({"PARTITIONS": "1.5"}, "CONTACT_SYNC_PARTITIONS must be a whole number from 1 to 16384, not '1.5'"),
        ({"NAMESPACE": "a{b}"}, "CONTACT_SYNC_NAMESPACE must be 1 to 64 letters, digits and -_.:, not 'a{b}'"),
        ({"NAMESPACE": "a\n"}, r"CONTACT_SYNC_NAMESPACE must be 1 to 64 letters, digits and -_.:, not 'a\n'"),
        (
            {"REDIS_URL": "redis+sentinel://host"},
            f"CONTACT_SYNC_REDIS_URL must be {RULE}",
        ),
        (
            {"REDIS_URL": "redis+cluster://host/1"},
            f"CONTACT_SYNC_REDIS_URL must be {RULE}",
        ),
        (
            {"REDIS_URL": "redis+cluster://host?db=1"},
            "CONTACT_SYNC_REDIS_URL: a cluster has one database, and its URL no option db",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_variable_and_the_rule(environ: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({f"CONTACT_SYNC_{name}": value for name, value in environ.items()})
    assert str(caught.value) == line


@pytest.mark.parametrize("namespace", ["x" * 64, "Az09-_.:"])
def test_a_namespace_has_room_for_64_plain_characters(namespace: str) -> None:
    assert load(namespace=namespace).keys.config == f"{namespace}:config"
    with pytest.raises(SettingsError):
        load(namespace=namespace + "x" * 64)


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "rediss://u:p@h/1", "unix:///run/redis.sock?db=2", "redis://h?health_check_interval=30"]
)
def test_urls_of_a_single_redis_are_taken(url: str) -> None:
    assert load(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@h",
        "redis://:hunter2@h:port",
        "unix://?p=hunter2",
        "REDIS://:hunter2@h",
        "redis://:hun#ter2@h",
        "redis://:hunter2@h/first",
        "hunter2",
    ],
)
def test_a_password_in_a_url_that_does_not_fit_stays_hidden(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^CONTACT_SYNC_REDIS_URL must be a URL such as [^\n]*$") as caught:
        load(redis_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("query", ["db=hunter2", "password=hunter2", "hunter2", "health_check_interval=hunter2"])
def test_an_option_that_does_not_fit_is_one_line_without_its_value(query: str) -> None:
    with pytest.raises(SettingsError, match=r"^CONTACT_SYNC_REDIS_URL[^\n]* option[^\n]*$") as caught:
        load(redis_url=f"redis://:hunter2@h?{query}")
    assert "hunter2" not in str(caught.value)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(SettingsError, match=r"^CONTACT_SYNC_NAMESPACE must .*; CONTACT_SYNC_PARTITIONS must [^\n]*$"):
        ProducerSettings(namespace="", partitions=0)


def test_a_nul_in_a_value_of_ours_is_refused(dotenv: Path) -> None:
    dotenv.write_bytes(b"OTHER=a\0b\nCONTACT_SYNC_INBOX_MAP=a\0b\n")
    with pytest.raises(SettingsError, match=r"env: CONTACT_SYNC_INBOX_MAP must have no NUL$"):
        load({}, dotenv)


def test_a_file_that_is_no_text_is_refused(dotenv: Path) -> None:
    dotenv.write_bytes(b"CONTACT_SYNC_NAMESPACE=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read: it is not UTF-8$"):
        load({}, dotenv)
    assert load({}, dotenv.parent) == load({}, dotenv.parent / "none") == ProducerSettings()


def test_a_line_of_the_file_that_cannot_be_read_drops_no_setting(dotenv: Path) -> None:
    dotenv.write_text('CONTACT_SYNC_REDIS_URL=redis://file\nCONTACT_SYNC_NAMESPACE="prod\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"\.env, line 2: it must be NAME=value"):
        load({}, dotenv)
    dotenv.write_text("# a remark\nof another program\nexport CONTACT_SYNC_NAMESPACE='a-b'\n\n", encoding="utf-8")
    assert load({}, dotenv).namespace == "a-b"
