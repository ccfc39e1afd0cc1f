"""What becomes of gate, records, late marks and dead letters for every answer there is, and for none."""

from __future__ import annotations

import socket
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fleet import T
from worker.core.gate import SINGLE_REJECTIONS_MAX

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.fleet import Fleet

RETRIED = [
    *({"kind": "status", "status": status} for status in (408, 425, 429, 500, 503)),
    {"kind": "status", "status": 500, "code": "50001"},
    {"kind": "envelope", "status": 500, "code": "50001"},
]
"""The endpoint itself says that it has done with the request, and why: no mark is needed."""

AMBIGUOUS = [
    {"kind": "status", "status": 500, "garbage": True},
    {"kind": "status", "status": 502},
    {"kind": "status", "status": 504},
    {"kind": "status", "status": 204},
    {"kind": "reset"},
    {"kind": "drop_before"},
    {"kind": "drop_after"},
    {"kind": "garbage"},
    {"kind": "hang"},
    {"kind": "hang", "apply": True},
    {"kind": "drip_headers", "seconds": 0.05},
    {"kind": "drip_body", "seconds": 0.05},
    {"kind": "large_body", "bytes": 4_000_000},
]
"""The request may have acted, or may yet act."""

HELD = [
    ({"kind": "status", "status": 400, "code": "40001"}, "credentials"),
    ({"kind": "envelope", "status": 400, "code": "40001"}, "credentials"),
    *(
        ({"kind": "status", "status": 401, "code": code}, "credentials")
        for code in ("40102", "40103", "40106", "49101")
    ),
    ({"kind": "status", "status": 401}, "credentials"),
    ({"kind": "status", "status": 403}, "credentials"),
    ({"kind": "status", "status": 402}, "endpoint_refuses"),
    ({"kind": "status", "status": 404}, "endpoint_refuses"),
    ({"kind": "status", "status": 400}, "endpoint_refuses"),
    ({"kind": "status", "status": 400, "garbage": True}, "endpoint_refuses"),
    ({"kind": "status", "status": 422, "garbage": True}, "endpoint_refuses"),
    ({"kind": "envelope", "code": "40002", "field": "101"}, "endpoint_refuses"),
    ({"kind": "status", "status": 413}, "endpoint_refuses"),
    *(({"kind": "redirect", "status": status, "location": "/elsewhere"}, "redirect") for status in (301, 302, 307)),
]
"""The cause lies outside the record: nothing is dead-lettered, no attempt is burnt."""

REFUSED = [
    *({"kind": "envelope", "code": "40002", "field": field} for field in ("102", "103", "104", "")),
    {"kind": "status", "status": 400, "code": "40002", "field": "102"},
    {"kind": "status", "status": 422},
]
"""The endpoint refuses this one record."""


UNKNOWN: list[dict[str, Any]] = [
    {"kind": "status", "status": 403, "code": "40301"},
    {"kind": "status", "status": 404, "code": "40401"},
    {"kind": "status", "status": 500, "code": "99999"},
    {"kind": "status", "status": 400, "code": "47777"},
    {"kind": "envelope", "code": "40002", "field": "999"},
]
"""The platform refuses this one record, with a code that nobody has documented as its fault."""


def name_of(case: Any) -> str:
    fault = case[0] if isinstance(case, tuple) else case
    return " ".join(str(value) for value in fault.values()) if isinstance(fault, dict) else str(case)


def send_one(fleet: Fleet, fault: dict[str, Any], **overrides: Any) -> None:
    """One upsert, sent once into this fault, with a gate that then stays as it is for the length of the test."""
    fleet.change(**{"backoff_base_seconds": 60.0, "backoff_max_seconds": 60.0} | overrides)
    fleet.stand_in.faults({**fault, "times": 1})
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()


def reopen(fleet: Fleet) -> None:
    """Lets the next probe go out now, as if the wait were over."""
    assert fleet.client.hdel(fleet.keys.gate, "not_before")


@pytest.mark.parametrize("fault", RETRIED, ids=name_of)
def test_a_transient_failure_is_an_attempt_that_costs_the_record_nothing(fleet: Fleet, fault: dict[str, Any]) -> None:
    send_one(fleet, fault)
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.attempts, snapshot.closed) == ("backing_off", 1, True)
    assert snapshot.error.startswith("HTTP ")
    assert (fleet.marks(), fleet.dead_letters()) == ({}, [])
    assert fleet.totals()["retries"] == 1
    reopen(fleet)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert fleet.first.gate.snapshot().state == "ok"


@pytest.mark.parametrize("fault", AMBIGUOUS, ids=name_of)
def test_a_request_that_may_still_act_marks_its_records_until_it_can_act_no_more(
    fleet: Fleet, fault: dict[str, Any]
) -> None:
    before_ms = fleet.now_ms()
    send_one(fleet, fault)
    after_ms = fleet.now_ms()
    mark = fleet.marks()["1", "2"]
    acting_ms = 900  # request timeout and late seconds of the fleet
    assert before_ms + acting_ms <= mark.upsert_until_ms <= after_ms + acting_ms + 5_000  # clocks are read late
    assert mark.delete_until_ms == 0
    assert (fleet.first.gate.snapshot().state, fleet.dead_letters()) == ("backing_off", [])
    fleet.stand_in.remove_faults()
    reopen(fleet)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert fleet.totals()["records_confirmed"] == 1


def test_a_connection_that_is_refused_marks_nothing_since_nothing_was_sent(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    send_one(fleet, {"kind": "reset"}, endpoint_url=f"http://127.0.0.1:{port}")
    assert (fleet.first.gate.snapshot().state, fleet.marks()) == ("backing_off", {})
    assert (fleet.backlog(), fleet.dead_letters()) == (1, [])


def test_a_request_that_hangs_ends_at_its_deadline(fleet: Fleet) -> None:
    fleet.change(request_timeout_seconds=0.3)
    before_ms = fleet.now_ms()
    send_one(fleet, {"kind": "drip_body", "seconds": 0.1})
    assert fleet.now_ms() - before_ms < 1_300  # the whole answer would have taken ten seconds
    assert fleet.marks()


@pytest.mark.parametrize(("fault", "reason"), HELD, ids=name_of)
def test_a_refusal_whose_cause_lies_outside_the_record_holds_the_endpoint(
    fleet: Fleet, fault: dict[str, Any], reason: str
) -> None:
    send_one(fleet, fault)
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.reason, snapshot.attempts, snapshot.closed) == ("held", reason, 0, True)
    assert (fleet.marks(), fleet.dead_letters()) == ({}, [])
    assert fleet.backlog() + len(fleet.pending()) == 1
    reopen(fleet)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}
    assert (fleet.first.gate.snapshot().state, fleet.first.gate.snapshot().reason) == ("ok", "")


def test_a_redirect_is_not_followed(fleet: Fleet) -> None:
    send_one(fleet, {"kind": "redirect", "location": f"{fleet.stand_in.url}/v1/server/contact/sync"})
    assert fleet.stand_in.counts()["requests"] == 1


@pytest.mark.parametrize("fault", REFUSED, ids=name_of)
def test_a_record_that_is_refused_alone_becomes_a_dead_letter_and_the_endpoint_stays_open(
    fleet: Fleet, fault: dict[str, Any]
) -> None:
    send_one(fleet, {**fault, "message": "says why"} if not fault.get("garbage") else fault)
    (letter,) = fleet.dead_letters()
    assert (letter["owner"], letter["contact"], letter["op"], letter["at"]) == ("1", "2", "upsert", T)
    assert letter["reason"] == "refused"
    assert (letter["code"] or "", letter["field"] or "") == (fault.get("code", ""), fault.get("field", ""))
    assert fleet.first.gate.snapshot().state == "ok"
    assert (fleet.waits(), fleet.marks(), fleet.totals()["dead_lettered"]) == (False, {}, 1)


@pytest.mark.parametrize("fault", UNKNOWN, ids=name_of)
def test_a_refusal_with_an_unknown_code_parks_the_record(fleet: Fleet, fault: dict[str, Any]) -> None:
    send_one(fleet, fault)
    assert fleet.client.hlen(fleet.keys.parked(fleet.partition("1"))) == 1
    assert fleet.first.gate.snapshot().state == "ok"
    assert (fleet.waits(), fleet.marks(), fleet.dead_letters()) == (False, {}, [])


def test_a_dead_letter_carries_the_endpoints_own_message(fleet: Fleet) -> None:
    fleet.stand_in.settings(poisoned=["2"])
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    (letter,) = fleet.dead_letters()
    assert (letter["code"], letter["field"]) == ("40002", "103")
    assert letter["message"] == "Param 'contactXCUserID' is not a known user"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_a_floor_of_the_wait(fleet: Fleet, form: str) -> None:
    header = "30" if form == "seconds" else formatdate(fleet.now_ms() / 1000 + 30, usegmt=True)
    send_one(fleet, {"kind": "status", "status": 429, "retry_after": header}, backoff_base_seconds=0.001)
    assert 28_000 <= fleet.first.gate.snapshot().wait_ms <= 30_000


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_counts_beyond_the_longest_backoff_and_up_to_its_own_maximum(fleet: Fleet, status: int) -> None:
    fault = {"kind": "status", "status": status, "retry_after": "86400"}
    send_one(fleet, fault, backoff_base_seconds=0.02, backoff_max_seconds=2.0, retry_after_max_seconds=5.0)
    assert 4_000 <= fleet.first.gate.snapshot().wait_ms <= 5_000


def delay_ms(fleet: Fleet) -> int:
    """From the moment in which the gate closed until the next probe."""
    not_before, moved = fleet.client.hmget(fleet.keys.gate, ["not_before", "moved"])
    return int(not_before or 0) - int(moved or 0)


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 404, "garbage": True}, {"status": 302}, {"status": 402}])
@pytest.mark.parametrize(("retry_after", "waits_ms"), [("50", 50_000), ("86400", 55_000), ("3", 15_000)])
def test_retry_after_is_a_floor_of_the_next_probe_of_a_held_endpoint(
    fleet: Fleet, fault: dict[str, Any], retry_after: str, waits_ms: int
) -> None:
    send_one(fleet, {"kind": "status", "retry_after": retry_after, **fault}, retry_after_max_seconds=55.0)
    assert (fleet.first.gate.snapshot().state, delay_ms(fleet)) == ("held", waits_ms)


def test_retry_after_is_that_floor_too_where_refused_records_hold_the_endpoint(fleet: Fleet) -> None:
    fleet.client.hset(fleet.keys.gate, "lone", SINGLE_REJECTIONS_MAX - 1)
    send_one(fleet, {"kind": "status", "status": 422, "retry_after": "50"})
    assert (fleet.first.gate.snapshot().reason, delay_ms(fleet)) == ("every_record_rejected", 50_000)


def test_retry_after_is_that_floor_too_where_an_unknown_code_holds_the_endpoint(fleet: Fleet) -> None:
    fault = {"kind": "status", "status": 404, "code": "40401", "retry_after": "50"}
    send_one(fleet, fault, unknown_refusal="hold")
    assert (fleet.first.gate.snapshot().reason, delay_ms(fleet)) == ("endpoint_refuses", 50_000)


def test_a_held_endpoint_opens_once_the_key_files_were_replaced(fleet: Fleet, tmp_path: Path) -> None:
    key_id, secret = tmp_path / "id", tmp_path / "secret"
    key_id.write_text("stand-in\n")
    secret.write_text("expired\n")
    fleet.change(server_key_id=None, server_key_id_file=key_id, server_key_secret=None, server_key_secret_file=secret)
    send_one(fleet, {"kind": "status", "status": 503})
    reopen(fleet)
    fleet.flush_once()
    assert fleet.first.gate.snapshot().reason == "credentials"
    secret.write_text("stand-in\n")
    reopen(fleet)
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_a_key_file_that_is_gone_holds_the_endpoint_and_sends_nothing(fleet: Fleet, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    fleet.change(server_key_secret=None, server_key_secret_file=secret)
    fleet.append("1", "2", "upsert", T)
    fleet.flush_once()
    snapshot = fleet.first.gate.snapshot()
    assert (snapshot.state, snapshot.reason) == ("held", "credentials")
    assert "CONTACT_SYNC_SERVER_KEY_SECRET_FILE" in snapshot.error
    assert fleet.stand_in.counts()["requests"] == 0
    secret.write_text("stand-in")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_neither_the_secret_nor_an_id_is_logged(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    fleet.change(server_key_secret="s3cret-of-ours")
    for fault in ({"kind": "garbage"}, {"kind": "status", "status": 422}):
        fleet.stand_in.faults({**fault, "times": 1})
    fleet.append("owner-of-a-contact", "contact-of-an-owner", "upsert", T)
    fleet.flush(0.5)
    said = "".join(capfd.readouterr())
    assert "batch_retry" in said
    for secret in ("s3cret-of-ours", "owner-of-a-contact", "contact-of-an-owner"):
        assert secret not in said


def test_an_id_that_the_endpoint_repeats_is_neither_logged_nor_kept_by_the_gate(
    fleet: Fleet, capfd: pytest.CaptureFixture[str]
) -> None:
    owner = "owner-of-a-contact"
    echo = {"kind": "status", "status": 422, "field": owner, "message": owner}
    fleet.append(owner, "0", "upsert", T)
    fleet.stand_in.faults({**echo, "times": SINGLE_REJECTIONS_MAX + 1})
    for times in range(SINGLE_REJECTIONS_MAX):
        fleet.append(owner, str(times), "upsert", T + 1)
        fleet.flush(0.5)
    assert fleet.dead_letters()
    assert owner not in "".join(capfd.readouterr())
    assert not any(owner in value.decode() for value in fleet.client.hvals(fleet.keys.gate))
