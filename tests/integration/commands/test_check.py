"""What `contact-sync check` finds right and wrong."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.commands import dead_letter, run, told
from tests.support.fleet import PARTITIONS, Fleet
from tests.support.tcp_server import TcpServer
from worker.admin.check import check_variables
from worker.admin.check_redis import check_clock
from worker.local.redis import EmbeddedRedis
from worker.store.permissions import USED_COMMANDS

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from worker.standin.client import StandInClient


class SayingOk(TcpServer):
    """A server that says OK to whatever it is asked."""

    def _serve(self, client: socket.socket) -> None:
        with client:
            while asked := client.recv(65536):
                client.sendall(b"+OK\r\n" * asked.count(b"*"))


def checks(fleet: Fleet, **overrides: Any) -> dict[str, str]:
    return {each["name"]: each["severity"] for each in told(fleet, "check", **overrides)["checks"]}


def test_check_finds_everything_right_and_changes_nothing(fleet: Fleet, stand_in: StandInClient) -> None:
    fleet.flush()
    before = set(fleet.client.keys(f"{fleet.keys.namespace}*"))
    ran = run(fleet, "check")
    assert ran.exit_code == 0
    assert "wrong" not in ran.stdout
    assert set(fleet.client.keys(f"{fleet.keys.namespace}*")) == before
    assert stand_in.applied() == []


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        ({"server_key_secret": "no-such-secret"}, "endpoint"),
        ({"server_key_secret": None}, "credentials"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "endpoint"),
        ({"redis_url": "redis://:pass-word@127.0.0.1:1/0"}, "redis"),
    ],
)
def test_check_says_what_is_wrong_without_any_secret(fleet: Fleet, overrides: dict[str, Any], wrong: str) -> None:
    found = checks(fleet, **overrides)
    assert [name for name, severity in found.items() if severity == "wrong"] == [wrong]
    ran = run(fleet, "check", **overrides)
    assert ran.exit_code == 1
    assert not any(secret in ran.output for secret in ("no-such-secret", "pass-word", "Traceback"))


def test_check_says_that_a_server_is_no_contact_endpoint(fleet: Fleet) -> None:
    assert checks(fleet, endpoint_url=fleet.stand_in.url + "/elsewhere")["endpoint"] == "wrong"


def test_check_blames_neither_key_nor_url_if_the_platform_has_suspended_the_app(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 492, "code": "49202", "field": "", "message": "suspended"})
    [found] = [each for each in told(fleet, "check")["checks"] if each["name"] == "endpoint"]
    assert found["severity"] == "wrong"
    assert "the app is suspended or unavailable" in found["message"]
    assert "49202" in found["message"]
    assert "CONTACT_SYNC_" not in found["message"]


def test_check_warns_of_an_endpoint_that_is_out_of_order(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 503})
    assert checks(fleet)["endpoint"] == "warn"


def test_check_finds_another_number_of_partitions_wrong(fleet: Fleet) -> None:
    fleet.flush()
    assert checks(fleet, partitions=PARTITIONS + 1)["partitions"] == "wrong"


def test_check_warns_where_broker_and_log_share_a_bounded_memory(fleet: Fleet) -> None:
    with EmbeddedRedis(config={"maxmemory": "64mb", "maxmemory-policy": "noeviction"}) as bounded:
        assert checks(fleet, redis_url=bounded.url)["broker"] == "warn"
        assert (
            checks(fleet, redis_url=bounded.url, broker_url=fleet.environment()["CONTACT_SYNC_REDIS_URL"])["broker"]
            == "ok"
        )


def test_check_finds_a_policy_that_evicts_wrong(fleet: Fleet) -> None:
    with EmbeddedRedis(config={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}) as evicting:
        assert checks(fleet, redis_url=evicting.url)["eviction"] == "wrong"


# Access rules


def url_of(fleet: Fleet, *rules: str) -> str:
    """The fleet's Redis, as a user to whom these access rules apply."""
    fleet.client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pass-word", *rules)
    url = urlsplit(fleet.environment()["CONTACT_SYNC_REDIS_URL"])
    return f"unix://limited:pass-word@{url.path}?{url.query}"


def test_the_commands_that_check_asks_for_are_all_that_it_takes(fleet: Fleet) -> None:
    allowed = [f"+{name}" for name in (*USED_COMMANDS, "rename", "xread", "evalsha", "script|load", "multi", "exec")]
    url = url_of(fleet, f"~{fleet.keys.namespace}:*", *allowed, "+@connection", "+time", "+info", "+eval")
    assert checks(fleet, redis_url=url)["permissions"] == "ok"
    fleet.change(redis_url=url)
    fleet.producer().upsert("1", "2")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    dead_letter(fleet)
    assert run(fleet, "dead-letters", "redrive").exit_code == 0
    fleet.deliver()
    assert ("1", "9") in fleet.stand_in.contacts()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (("~*", "+@all", "-xtrim", "-hset"), "HSET, XTRIM"),
        (("~*", "+@all", "-hsetnx"), "HSETNX"),
        (("~*", "+@all", "-evalsha"), "EVALSHA"),
        (("~*", "+@all", "-exec"), "EXEC"),
        (("~*", "+@all", "-script|load"), "SCRIPT"),
        (("~foreign:*", "+@all"), "permissions to access"),  # Redis' own words, which differ by version
    ],
)
def test_check_says_what_access_rules_refuse(fleet: Fleet, rules: tuple[str, ...], said: str) -> None:
    ran = run(fleet, "check", redis_url=url_of(fleet, *rules))
    assert ran.exit_code == 1
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("wrong")]
    assert line.startswith("wrong  permissions")
    assert said in line


# The broker


@pytest.mark.parametrize(
    ("broker_url", "severity", "said"),
    [
        ("redis://127.0.0.1:1/0", "warn", "until it answers, workers look for work by themselves"),
        ("amqp://127.0.0.1:1//", "warn", "until it answers, workers look for work by themselves"),
        ("sqs://", "wrong", "No module named"),
        ("memory://", "ok", "none: each worker process looks for work by itself"),
    ],
)
def test_check_asks_the_broker_whatever_it_is(fleet: Fleet, broker_url: str, severity: str, said: str) -> None:
    found = {each["name"]: each for each in told(fleet, "check", broker_url=broker_url)["checks"]}
    assert found["broker"]["severity"] == severity
    assert said in found["broker"]["message"]


# Settings


def test_check_names_variables_that_nothing_reads(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("CONTACT_SYNC_PARTITION=8\nOTHER=1\n")
    first = run(fleet, "check").stdout.splitlines()[0]
    assert first.endswith("unknown setting CONTACT_SYNC_PARTITION: did you mean CONTACT_SYNC_PARTITIONS?")


def test_the_variables_of_others_and_our_own_are_nothing_to_speak_of(fleet: Fleet) -> None:
    assert list(check_variables([*fleet.environment(), "PATH", "CELERY_BROKER_URL"])) == []
    (found,) = check_variables(["CONTACT_SYNC_NO_SUCH_THING"])
    assert found.message == "unknown setting CONTACT_SYNC_NO_SUCH_THING"


def test_check_says_that_the_config_key_is_none_of_ours(fleet: Fleet) -> None:
    fleet.client.set(fleet.keys.config, "no hash")
    assert checks(fleet)["partitions"] == "wrong"


@pytest.mark.parametrize("least", ["least_reader", "least_writer"])
def test_check_says_that_the_log_needs_a_newer_version(fleet: Fleet, least: str) -> None:
    fleet.flush()
    fleet.client.hset(fleet.keys.config, least, "9")
    assert checks(fleet)["partitions"] == "wrong"


def test_check_says_in_one_line_that_a_server_is_not_redis(fleet: Fleet) -> None:
    with SayingOk() as server:
        lines = run(fleet, "check", redis_url=f"redis://127.0.0.1:{server.port}/0").stdout.splitlines()
    assert any(line.startswith("wrong  redis") and "a reply cannot be read" in line for line in lines)


def test_check_names_the_url_that_is_not_right_and_its_variable(fleet: Fleet) -> None:
    lines = run(fleet, "check", endpoint_url="http://127.0.0.1:1").stdout.splitlines()
    assert lines[-1].startswith("wrong  endpoint     http://127.0.0.1:1: no connection")
    assert lines[-1].endswith("; is CONTACT_SYNC_ENDPOINT_URL right?")


@pytest.mark.parametrize(
    ("ahead", "severity", "said"),
    [
        (0, "ok", "agrees with"),
        (4, "ok", "agrees with"),
        (-6, "warn", "6 s behind Redis'"),
        (6, "warn", "6 s ahead of Redis'"),
        (240, "warn", "240 s ahead of Redis'"),
        (301, "wrong", "at_out_of_range"),
        (-3600, "warn", "3600 s behind Redis'"),
    ],
)
def test_check_compares_the_clocks(fleet: Fleet, ahead: int, severity: str, said: str) -> None:
    finding = check_clock(fleet.client, lambda: time.time() + ahead)
    assert finding.severity == severity
    assert said in finding.message


@pytest.mark.parametrize(
    ("command", "variables", "shown"),
    [
        ("check", {"\udcff": "1"}, "CONTACT_SYNC_\\xff"),
        ("check", {"inbox_map": "/no/\udcff.toml"}, "/no/\\xff.toml"),
        ("check", {"server_key_id": None, "server_key_id_file": "/no/\udcff.key"}, "/no/\\xff.key"),
        ("check", {"redis_url": "unix:///no/\udcff.sock"}, "/no/\\xff.sock"),
        ("health", {"redis_url": "unix:///no/\udcff.sock"}, "/no/\\xff.sock"),
        ("status", {"redis_url": "unix:///no/\udcff.sock"}, "/no/\\xff.sock"),
    ],
)
def test_a_name_that_is_not_utf_8_is_shown_byte_by_byte_in_lines_and_in_json(
    command: str, variables: dict[str, Any], shown: str, fleet: Fleet
) -> None:
    ran = run(fleet, command, "--json", **variables)
    if command == "status":  # which has nothing to tell then
        assert shown in ran.stderr
    else:
        assert shown in json.dumps(json.loads(ran.stdout)).replace("\\\\", "\\")
    assert shown in run(fleet, command, **variables).output
