"""Who can take part in a log: what is recorded, what it changes, and who is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from producers.contract.errors import TooOld
from producers.contract.partitions import LOG_FORMAT
from tests.support.commands import run, told
from tests.support.fleet import T
from worker.core.dead_letter import DEAD_CAP
from worker.core.lane import class_of
from worker.store.log_form import NEWEST, LogForm, agree_form, recorded_form

if TYPE_CHECKING:
    from tests.support.fleet import Fleet


def was_read(fleet: Fleet) -> None:
    """As a worker leaves it that records nothing of the form."""
    fleet.client.hset(fleet.keys.config, "format", "1")
    fleet.client.hset(fleet.keys.partition(3), "token", "1")


def note_worker(fleet: Fleet, name: str, *more: str) -> None:
    now_ms = str(fleet.now_ms())
    fleet.client.hset(fleet.keys.workers, name, ",".join([now_ms, now_ms, "8", "thread", *more]))


def test_a_log_that_nobody_has_read_has_the_newest_form(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    assert agree_form(fleet.namespace) == NEWEST
    assert fleet.client.hget(fleet.keys.config, "format") == str(LOG_FORMAT).encode()
    assert agree_form(fleet.namespace) == NEWEST


def test_a_log_that_older_workers_have_read_keeps_their_form(fleet: Fleet) -> None:
    was_read(fleet)
    assert agree_form(fleet.namespace) == LogForm(1, 1)
    assert fleet.client.hget(fleet.keys.config, "format") == b"1"


def test_a_log_that_an_older_worker_is_awake_to_read_keeps_its_form(fleet: Fleet) -> None:
    note_worker(fleet, "sync@old 2")
    assert agree_form(fleet.namespace) == LogForm(1, 1)


def test_a_worker_beside_older_ones_stays_so_though_redis_loses_what_was_recorded(fleet: Fleet) -> None:
    was_read(fleet)
    beside_older = fleet.worker()
    fleet.client.delete(*fleet.client.keys(f"{fleet.keys.namespace}:*"))
    fleet.absorb(("1", "2", "delete", T, "live"), worker=beside_older)
    assert sizes(fleet) == {class_of("upsert", bulk=False): 1}
    assert recorded_form(fleet.namespace) == LogForm(1, 1)


def sizes(fleet: Fleet) -> dict[int, int]:
    """How many pairs wait in each class that has any."""
    return {each: len(pairs) for each, pairs in enumerate(fleet.classes()) if pairs}


def test_pairs_wait_where_older_workers_find_them_and_stay_nowhere_else(fleet: Fleet) -> None:
    fleet.absorb(("1", "2", "delete", T, "live"), worker=fleet.worker())
    assert sizes(fleet) == {class_of("delete", bulk=False): 1}
    for field in ("least_reader", "least_writer"):  # and the older ones come back
        fleet.client.hset(fleet.keys.config, field, "1")
    beside_older = fleet.worker()
    fleet.absorb(
        ("1", "2", "delete", T + 1, "live"),
        ("1", "3", "delete", T + 1, "live"),
        ("1", "4", "upsert", T + 1, "bulk"),
        worker=beside_older,
    )
    assert sizes(fleet) == {class_of("upsert", bulk=False): 3}
    fleet.deliver(beside_older)
    assert fleet.stand_in.contacts() == {("1", "4")}
    assert sizes(fleet) == {}


def test_an_upgrade_names_the_workers_that_are_too_old(fleet: Fleet) -> None:
    was_read(fleet)
    agree_form(fleet.namespace)
    note_worker(fleet, "sync@new 1", str(LOG_FORMAT))
    note_worker(fleet, "sync@old 2")
    refused = run(fleet, "upgrade")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [
        "contact-sync: these workers are too old, so nothing was changed: sync@old 2"
    ]
    as_json = run(fleet, "upgrade", "--json")
    assert as_json.exit_code == 1
    assert '"too_old": [\n    "sync@old 2"\n  ]' in as_json.stdout
    assert recorded_form(fleet.namespace) == LogForm(1, 1)
    fleet.client.hdel(fleet.keys.workers, "sync@old 2")
    assert told(fleet, "upgrade") == {
        "raised": True,
        "least_reader": LOG_FORMAT,
        "least_writer": LOG_FORMAT,
        "too_old": [],
    }
    assert told(fleet, "upgrade")["raised"] is False
    assert recorded_form(fleet.namespace) == NEWEST


@pytest.mark.parametrize(("field", "who"), [("least_reader", "workers"), ("least_writer", "producers")])
def test_who_is_too_old_is_told_so_in_one_line(fleet: Fleet, field: str, who: str) -> None:
    fleet.client.hset(fleet.keys.config, "partitions", "8")
    fleet.client.hset(fleet.keys.config, field, str(LOG_FORMAT + 1))
    with pytest.raises(TooOld, match=f"its {who} must know format {LOG_FORMAT + 1}") as caught:
        _: Any = fleet.worker()
    assert "\n" not in str(caught.value)
    for command in (["status"], ["parked", "bury"], ["drain"], ["repartition", "16"], ["upgrade"]):
        ran = run(fleet, *command)
        assert (ran.exit_code, ran.stderr.count("\n")) == (2, 1), command
        assert f"its {who} must know format {LOG_FORMAT + 1}" in ran.stderr
    if field == "least_writer":
        with pytest.raises(TooOld):
            fleet.producer().upsert("1", "2")


def test_nothing_is_parked_while_older_workers_may_read_the_log(fleet: Fleet) -> None:
    """They know no parked pairs: they would confirm a newer delete, and the parked upsert would come after it."""
    was_read(fleet)
    fleet.change(backoff_max_seconds=60.0)
    fleet.stand_in.settings(poisoned=["2"], poison_code="40401")
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.reason, snapshot.error) == ("held", "endpoint_refuses", "code 40401")
    assert (fleet.client.exists(fleet.keys.parked(fleet.partition("1"))), fleet.waits()) == (0, True)


def test_what_no_dead_letter_has_room_for_waits_on_while_older_workers_may_read_the_log(fleet: Fleet) -> None:
    """It holds the endpoint: sent again and again, it would take the place of all others."""
    was_read(fleet)
    fleet.change(backoff_max_seconds=60.0)
    p = fleet.partition("1")
    letters = {f"{p}-{n}": "{}" for n in range(DEAD_CAP)}
    fleet.client.hset(fleet.keys.dead(p), mapping=letters)
    fleet.stand_in.settings(poisoned=["2"])
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    assert (fleet.client.exists(fleet.keys.parked(p)), fleet.waits()) == (0, True)
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.reason) == ("held", "endpoint_refuses")
    assert snapshot.error == "code 40002, field 103, and its partition has no room for a dead letter"
    fleet.client.delete(fleet.keys.dead(p))
    fleet.client.hdel(fleet.keys.gate, "not_before")  # the operator has mended it, and the time has come
    fleet.deliver()
    assert fleet.client.hlen(fleet.keys.dead(p)) == 1
