"""What `serve` tells is what lies in Redis: exact across workers and restarts, and honest while Redis is away."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import dead_letter, told
from tests.support.fleet import PARTITIONS, Fleet, T
from tests.support.serving import metrics, serving
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.waiting import WaitUntil
    from worker.standin.client import StandInClient


def test_a_scrape_is_the_fleets_whoever_did_the_work_and_whenever_it_began(fleet: Fleet) -> None:
    for n in range(6):
        fleet.append("1", str(n), "delete" if n % 3 == 0 else "upsert", T)
        fleet.deliver(fleet.worker())
    dead_letter(fleet)
    fleet.append_raw(0, {"op": "nonsense"})
    fleet.append("1", "2", "upsert", T - 1)
    fleet.deliver()
    with serving(fleet) as client:
        before = metrics(client)
    with serving(fleet) as client:
        assert {**metrics(client), "contact_sync_redis_memory_used_bytes": 0.0} == {
            **before,
            "contact_sync_redis_memory_used_bytes": 0.0,
        }
    assert before["contact_sync_changes_accepted_total"] == 9
    assert before['contact_sync_changes_confirmed_total{op="upsert"}'] == 4
    assert before['contact_sync_changes_confirmed_total{op="delete"}'] == 2
    assert before["contact_sync_changes_stale_total"] == 1
    assert before['contact_sync_changes_dead_total{reason="refused"}'] == 1
    assert before['contact_sync_changes_dead_total{reason="missing_owner"}'] == 1
    assert before['contact_sync_change_confirmation_seconds_count{op="delete"}'] == 2
    assert before['contact_sync_requests_total{outcome="confirmed"}'] == 6
    assert before['contact_sync_requests_total{outcome="rejected"}'] >= 1
    assert before["contact_sync_dead_letters"] == 2
    assert before["contact_sync_partitions"] == PARTITIONS
    assert not [name for name in before if "unknown" in name]


def test_the_fill_of_requests_is_told(fleet: Fleet) -> None:
    fleet.append_many([("1", str(n), "upsert", None) for n in range(7)])
    fleet.deliver()
    with serving(fleet) as client:
        scraped = metrics(client)
    assert scraped["contact_sync_request_records_total"] == 7
    assert scraped['contact_sync_requests_total{outcome="confirmed"}'] == 1


def test_what_the_last_reconciliation_found_is_told(fleet: Fleet, tmp_path: Path) -> None:
    source = tmp_path / "contacts.csv"
    source.write_text("owner,contact\n1,2\n1,3\n")
    with serving(fleet) as client:
        before = metrics(client)
    assert before["contact_sync_reconcile_ended_timestamp_seconds"] == 0
    assert not [name for name in before if "reconcile_drift" in name]
    done = told(fleet, "reconcile", str(source), "--wait", "0")
    with serving(fleet) as client:
        after = metrics(client)
    assert after["contact_sync_reconcile_ended_timestamp_seconds"] > 1_700_000_000
    assert after['contact_sync_reconcile_changes{op="upsert"}'] == 2
    assert after['contact_sync_reconcile_drift{found="missing"}'] == done["drift"]["inserted"] == 0


def test_a_scrape_adds_up_with_status(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert")
    fleet.append("2", "2", "upsert")
    with serving(fleet) as client:
        scraped, status = metrics(client), told(fleet, "status")
    assert scraped["contact_sync_backlog_entries"] == status["backlog_events"] == 2
    assert scraped["contact_sync_waiting_changes"] == 2
    assert 0 < scraped["contact_sync_oldest_change_age_seconds"] <= status["oldest_seconds"]
    assert scraped["contact_sync_redis_up"] == 1
    assert scraped["contact_sync_ticker_alive"] == 0


def test_an_outage_is_told_as_the_gate_knows_it(fleet: Fleet) -> None:
    fleet.stand_in.faults({"kind": "status", "status": 500, "times": 1})
    fleet.append("1", "2", "upsert")
    fleet.flush_once()
    with serving(fleet) as client:
        scraped = metrics(client)
        shown = client.get("/api/status").json()["status"]["endpoint"]
    assert scraped['contact_sync_gate_state{state="backing_off"}'] == 1
    assert scraped['contact_sync_requests_total{outcome="retry"}'] == 1
    assert scraped["contact_sync_waiting_changes"] == 1
    assert shown["state"] == "backing_off"
    assert "500" in shown["last_error"]


def test_a_pause_is_told(fleet: Fleet) -> None:
    fleet.first.gate.pause()
    with serving(fleet) as client:
        scraped = metrics(client)
    assert scraped["contact_sync_paused"] == 1
    assert scraped['contact_sync_gate_held{reason="paused"}'] == 1


def test_the_page_is_told_each_partition(fleet: Fleet) -> None:
    letter = dead_letter(fleet)
    fleet.append("2", "2", "upsert")
    with serving(fleet) as client:
        found = client.get("/api/status").json()
    assert len(found["parts"]) == PARTITIONS
    assert found["parts"][fleet.partition("2")][:2] == [1, 0]
    assert found["parts"][int(letter.partition("-")[0])][2] == 1
    assert found["role"] == "operator"
    assert found["memory"]["used_bytes"] > 0
    assert found["status"]["totals"] == told(fleet, "status")["totals"]


def test_the_chart_begins_before_anybody_looks(fleet: Fleet, wait_until: WaitUntil) -> None:
    fleet.append("1", "2", "upsert")
    with serving(fleet) as client:
        wait_until(lambda: client.get("/api/history").json()["points"], what="it looked by itself")
        (point, *_) = client.get("/api/history").json()["points"]
    assert point[1:4] == [1, 0, 1]


def test_probes(fleet: Fleet) -> None:
    with serving(fleet) as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/readyz", "/api/status", "/api/dead-letters", "/api/explain?owner=1&contact=2"])
def test_without_redis_it_is_alive_and_says_what_is_missing(path: str, fleet: Fleet) -> None:
    with serving(fleet, redis_url="redis://:hunter2@127.0.0.1:1/0") as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get(path)
        assert metrics(client)["contact_sync_redis_up"] == 0
    assert (answer.status_code, answer.json()["error"]) == (503, "redis_away")
    assert "hunter2" not in answer.text
    assert "127.0.0.1" not in answer.text


def test_it_goes_on_by_itself_when_redis_is_back(
    namespace: str, stand_in: StandInClient, tmp_path: Path, wait_until: WaitUntil
) -> None:
    with ExitStack() as undo:
        with EmbeddedRedis(tmp_path, tcp=True) as server:
            fleet = undo.enter_context(Fleet(server.url, namespace, stand_in))
            client = undo.enter_context(serving(fleet))
            assert client.get("/readyz").status_code == 200
        assert client.get("/readyz").status_code == 503
        wait_until(lambda: client.get("/api/status").status_code == 503, what="no look is fresh any more")
        undo.enter_context(EmbeddedRedis(tmp_path, tcp=True))  # at the port that is noted there
        assert client.get("/readyz").status_code == 200
        assert client.get("/api/status").status_code == 200


def test_another_number_of_partitions_is_said_and_not_guessed(fleet: Fleet) -> None:
    fleet.producer().upsert("1", "2")
    with serving(fleet, partitions=PARTITIONS + 1) as client:
        answer = client.get("/api/status")
        assert client.get("/metrics").status_code == 503  # so that `up` is 0, and not Redis is to blame
    assert (answer.status_code, answer.json()["error"]) == (503, "unfit")
    assert f"{PARTITIONS + 1}" in answer.json()["message"]


def test_each_counter_is_read_from_its_own_field(fleet: Fleet) -> None:
    fields = {
        "changes_accepted": "events",
        "changes_coalesced": "coalesced",
        "changes_superseded": "superseded",
        "changes_stale": "stale",
        "changes_forgotten": "forgotten",
        "changes_suppressed": "suppressed",
        "request_records": "records_sent",
        "requests_retried": "retries",
        "repairs": "repairs",
        "endpoint_inserted": "inserted",
        "endpoint_deleted": "deleted",
    }
    numbers = {field: 10**6 + 7 * n for n, field in enumerate(fields.values())}
    fleet.client.hset(fleet.keys.totals(0), mapping=dict(numbers))
    with serving(fleet) as client:
        scraped = metrics(client)
    assert {name: scraped[f"contact_sync_{name}_total"] for name in fields} == {
        name: numbers[field] for name, field in fields.items()
    }


def test_all_who_ask_are_told_the_same_number_of_workers(fleet: Fleet) -> None:
    for n in range(3):
        fleet.client.hset(fleet.keys.workers, f"worker@{n} 1", f"{fleet.now_ms()},{fleet.now_ms()},8,thread")
    with serving(fleet) as client, serving(fleet) as another:
        asked = client.get("/api/workers-wanted").json()
        assert asked == {"workers_wanted": 3}
        fleet.client.delete(fleet.keys.workers)  # they crash: just as many are wanted
        assert another.get("/api/workers-wanted").json() == asked
        assert metrics(another)["contact_sync_workers_wanted"] == 3
        assert told(fleet, "status")["workers_wanted"] == 3
    with serving(fleet) as restarted:
        assert restarted.get("/api/workers-wanted").json() == asked


def test_a_key_that_something_else_wrote_hides_nothing(fleet: Fleet) -> None:
    fleet.client.set(fleet.keys.scaling, "x")
    with serving(fleet) as client:
        assert client.get("/api/workers-wanted").json() == {"workers_wanted": 1}
        assert metrics(client)["contact_sync_redis_up"] == 1
