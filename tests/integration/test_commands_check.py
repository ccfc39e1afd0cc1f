"""What `contact-sync check` finds right and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.commands import run, told
from tests.integration.fleet import PARTITIONS, Fleet
from worker.kept.redis import EmbeddedRedis

if TYPE_CHECKING:
    from worker.standin.client import StandInClient


def checks(fleet: Fleet, **overrides: Any) -> dict[str, str]:
    return {each["name"]: each["verdict"] for each in told(fleet, "check", **overrides)["checks"]}


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
    assert [name for name, verdict in found.items() if verdict == "wrong"] == [wrong]
    ran = run(fleet, "check", **overrides)
    assert ran.exit_code == 1
    assert not any(secret in ran.output for secret in ("no-such-secret", "pass-word", "Traceback"))


def test_check_says_that_a_server_is_no_contact_endpoint(fleet: Fleet) -> None:
    assert checks(fleet, endpoint_url=fleet.stand_in.url + "/elsewhere")["endpoint"] == "wrong"


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
