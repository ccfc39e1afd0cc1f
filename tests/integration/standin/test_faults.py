"""Every fault that can be ordered from the stand-in endpoint, seen from its client's side of the socket."""

from __future__ import annotations

import errno
import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.sync_request import client_of, delete, key, sync, upsert
from tests.support.waiting import wait_until
from worker.standin.client import StandInControlError
from worker.standin.faults import KINDS
from worker.standin.rules import SYNC_PATH

if TYPE_CHECKING:
    from worker.standin.client import StandInClient


def raw_request(url: str) -> socket.socket:
    """A connection over which one request to upsert (1, 2) was sent, and nothing read."""
    parsed = httpx.URL(url)
    body = b'{"contacts": [{"ownerXCUserID": "1", "contactXCUserID": "2"}]}'
    head = (
        f"POST {SYNC_PATH} HTTP/1.1\r\nHost: {parsed.host}\r\nServer-Key: {key()['Server-Key']}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection((parsed.host, parsed.port or 80), timeout=10)
    connection.sendall(head.encode() + body)
    return connection


def applied(stand_in: StandInClient) -> bool:
    """Whether the upsert of (1, 2) took effect."""
    return stand_in.contacts() == {("1", "2")}


def test_a_status_comes_with_its_envelope_and_retry_after(stand_in: StandInClient, client: httpx.Client) -> None:
    fault = {"kind": "status", "status": 503, "retry_after": "2", "code": "50001", "field": "", "message": "down"}
    stand_in.faults(fault)
    answer = sync(client, upsert("1", "2"))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json() == {
        "status": 503,
        "error": {"code": "50001", "message": "down", "field": ""},
        "data": {},
    }
    assert not applied(stand_in)


@pytest.mark.parametrize("status", [204, 304, 299, 499, 599])
def test_any_final_status_can_be_ordered(stand_in: StandInClient, client: httpx.Client, status: int) -> None:
    stand_in.faults({"kind": "status", "status": status, "garbage": True})
    assert sync(client, upsert("1", "2")).status_code == status
    assert sync(client, upsert("1", "2")).status_code == status  # the connection is still in order


def test_an_envelope_can_deny_what_the_status_confirms(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.faults({"kind": "envelope", "code": "40002", "field": "103", "message": "no", "status": 400})
    answer = sync(client, upsert("1", "2"))
    assert answer.status_code == 200
    assert answer.json() == {"status": 400, "error": {"code": "40002", "message": "no", "field": "103"}, "data": {}}
    assert not applied(stand_in)


def test_garbage_is_no_json(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.faults({"kind": "garbage"})
    answer = sync(client, upsert("1", "2"))
    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


def test_a_redirect_says_where_to(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.faults({"kind": "redirect", "location": "http://127.0.0.1:9/elsewhere", "status": 301})
    answer = sync(client, upsert("1", "2"))
    assert (answer.status_code, answer.headers["location"]) == (301, "http://127.0.0.1:9/elsewhere")
    assert not applied(stand_in)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "envelope", "code": "50001"},
        {"kind": "garbage"},
        {"kind": "redirect", "location": "/"},
    ],
)
def test_a_false_answer_may_stand_for_a_request_that_was_applied(
    stand_in: StandInClient, client: httpx.Client, fault: dict[str, object]
) -> None:
    stand_in.faults({**fault, "apply": True})
    sync(client, upsert("1", "2"))
    assert applied(stand_in)


@pytest.mark.parametrize(("kind", "takes_effect"), [("drop_before", False), ("drop_after", True)])
def test_a_dropped_connection_ends_without_a_byte(stand_in: StandInClient, kind: str, *, takes_effect: bool) -> None:
    stand_in.faults({"kind": kind})
    with raw_request(stand_in.url) as connection:
        assert connection.recv(1) == b""
    assert applied(stand_in) is takes_effect
    assert stand_in.counts()["statuses"] == {"none": 1}


@pytest.mark.parametrize("apply", [False, True])
def test_a_reset_connection_is_an_error_and_no_end(stand_in: StandInClient, *, apply: bool) -> None:
    stand_in.faults({"kind": "reset", "apply": apply})
    with raw_request(stand_in.url) as connection, pytest.raises(ConnectionResetError) as error:
        connection.recv(1)
    assert error.value.errno == errno.ECONNRESET
    assert applied(stand_in) is apply


@pytest.mark.parametrize("apply", [False, True])
def test_a_hanging_request_is_answered_once_its_order_is_removed(stand_in: StandInClient, *, apply: bool) -> None:
    (order,) = stand_in.faults({"kind": "hang", "times": 1, "apply": apply})
    with raw_request(stand_in.url) as connection:
        wait_until(lambda: stand_in.counts()["faults"] == {"hang": 1}, what="the request hangs")
        assert applied(stand_in) is apply
        assert stand_in.remove_faults(order["id"]) == 1
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert applied(stand_in)
    assert stand_in.counts()["inserted"] == 1


def test_a_hanging_request_whose_client_gave_up_is_never_applied(stand_in: StandInClient) -> None:
    stand_in.faults({"kind": "hang"})
    with raw_request(stand_in.url):
        wait_until(lambda: stand_in.counts()["faults"] == {"hang": 1}, what="the request hangs")
    wait_until(lambda: stand_in.counts()["in_flight"] == 0, what="the stand-in sees that its client is gone")
    stand_in.remove_faults()
    assert not applied(stand_in)


def test_a_delayed_request_is_applied_though_its_client_gave_up(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.faults({"kind": "delay", "seconds": 1})
    with pytest.raises(httpx.ReadTimeout):
        sync(client, upsert("1", "2"), timeout_seconds=0.05)
    assert not applied(stand_in)
    wait_until(lambda: applied(stand_in), what="the delayed request is applied")


@pytest.mark.parametrize("hold", [False, True])
def test_a_late_request_acts_after_its_connection_was_given_up(stand_in: StandInClient, *, hold: bool) -> None:
    stand_in.faults({"kind": "late", "seconds": 1, "hold": hold, "times": 1})
    began = time.monotonic()
    with raw_request(stand_in.url) as connection:
        if hold:
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        else:
            assert connection.recv(1) == b""
    assert stand_in.counts()["late"] == 1
    with client_of(stand_in.url) as client:  # what is newer is undone by what comes late: so it is with the real one
        sync(client, delete("1", "2"))
    wait_until(lambda: applied(stand_in), what="the late request acts")
    record = stand_in.applied()[-1]
    assert (record["request"], record["op"]) == (1, "upsert")
    assert record["at"] - began >= 1


def test_a_reset_of_the_stand_in_calls_late_requests_off(stand_in: StandInClient) -> None:
    stand_in.faults({"kind": "late", "seconds": 0.1, "times": 1})
    with raw_request(stand_in.url) as connection:
        assert connection.recv(1) == b""
    stand_in.reset()
    stand_in.settings(rate_limit_per_second=0.01)  # one request: if the late one acts, in whatever memory, it is that
    stand_in.faults({"kind": "delay", "seconds": 0.2})
    with raw_request(stand_in.url) as connection:  # by its answer the late one would have acted
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert [record["request"] for record in stand_in.applied()] == [1]


@pytest.mark.parametrize(
    "fault", [{"kind": "hang"}, {"kind": "delay", "seconds": 60}, {"kind": "late", "seconds": 60, "hold": True}]
)
def test_a_reset_of_the_stand_in_lets_go_what_waits(stand_in: StandInClient, fault: dict[str, object]) -> None:
    stand_in.faults(fault)
    with raw_request(stand_in.url) as connection:
        wait_until(lambda: stand_in.counts()["in_flight"] == 1, what="the request waits")
        stand_in.reset()
        assert connection.recv(1) == b""
    assert stand_in.contacts() == set()
    assert stand_in.counts()["in_flight"] == 0


@pytest.mark.parametrize("kind", ["drip_headers", "drip_body"])
def test_a_dripped_answer_comes_a_byte_at_a_time(stand_in: StandInClient, kind: str) -> None:
    stand_in.faults({"kind": kind, "seconds": 0.002})
    came = bytearray()
    began = time.monotonic()
    with raw_request(stand_in.url) as connection:
        while part := connection.recv(65536):
            came += part
    took_seconds = time.monotonic() - began
    head, _, body = bytes(came).partition(b"\r\n\r\n")
    dripped = body if kind == "drip_body" else came
    assert took_seconds >= 0.002 * (len(dripped) - 2)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body.endswith(b'"data":{"countInserted":1,"countDeleted":0}}')
    assert applied(stand_in)


def test_a_dripped_answer_is_whole_in_the_end(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.faults({"kind": "drip_headers", "seconds": 0})
    assert sync(client, upsert("1", "2")).json()["data"] == {"countInserted": 1, "countDeleted": 0}


def test_a_large_body_is_valid_and_as_long_as_ordered(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.faults({"kind": "large_body", "bytes": 3_000_001})
    answer = sync(client, upsert("1", "2"))
    assert len(answer.content) == 3_000_001
    assert answer.json()["data"]["countInserted"] == 1


def test_a_fault_meets_a_request_that_the_endpoint_refuses_as_well(stand_in: StandInClient) -> None:
    stand_in.faults({"kind": "drop_after"})
    with client_of(stand_in.url, {}) as stranger, pytest.raises(httpx.RemoteProtocolError):
        sync(stranger, upsert("1", "2"))
    assert not applied(stand_in)


def test_the_first_order_that_matches_is_met_and_each_as_often_as_ordered(
    stand_in: StandInClient, client: httpx.Client
) -> None:
    stand_in.faults(
        {"kind": "status", "status": 500, "times": 2},
        {"kind": "status", "status": 503, "times": 1},
    )
    assert [sync(client, upsert("1", "2")).status_code for _ in range(4)] == [500, 500, 503, 200]
    assert stand_in.faults() == []
    assert stand_in.counts()["faults"] == {"status": 3}
    assert [request["fault"] for request in stand_in.requests()] == ["status", "status", "status", None]


def test_an_order_without_times_holds_until_it_is_removed(stand_in: StandInClient, client: httpx.Client) -> None:
    (order,) = stand_in.faults({"kind": "status", "status": 500})
    assert [sync(client, upsert("1", "2")).status_code for _ in range(3)] == [500, 500, 500]
    assert stand_in.faults() == [{"id": order["id"], "kind": "status", "status": 500, "remaining": None, "met": 3}]
    assert stand_in.remove_faults(order["id"]) == 1
    assert stand_in.remove_faults(order["id"]) == 0
    assert sync(client, upsert("1", "2")).status_code == 200


def test_chance_is_the_same_for_the_same_seed(stand_in: StandInClient, client: httpx.Client) -> None:
    def statuses(seed: int) -> list[int]:
        stand_in.remove_faults()
        stand_in.faults({"kind": "status", "status": 500, "probability": 0.5, "seed": seed})
        return [sync(client, upsert("1", "2")).status_code for _ in range(40)]

    once = statuses(1)
    assert 5 < once.count(500) < 35
    assert statuses(1) == once
    assert statuses(2) != once


def test_requests_side_by_side_meet_no_more_faults_than_ordered(stand_in: StandInClient) -> None:
    stand_in.faults({"kind": "status", "status": 500, "times": 5})
    statuses: list[int] = []

    def deliver() -> None:
        with client_of(stand_in.url) as client:
            statuses.extend(sync(client, upsert("1", "2")).status_code for _ in range(10))

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(500) == 5
    assert len(statuses) == 40


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"kind": "explode"}, "kind: Input tag 'explode'"),
        ({}, "kind: "),
        ({"kind": "status"}, "status: Field required"),
        ({"kind": "status", "status": 100}, "status: "),
        ({"kind": "status", "status": 503, "retry_after": "1\r\nX: y"}, "retry_after: "),
        ({"kind": "status", "status": 503, "times": 0}, "times: "),
        ({"kind": "hang", "probability": 0}, "probability: "),
        ({"kind": "hang", "seconds": 1}, "seconds: Extra inputs"),
        ({"kind": "delay", "seconds": float("1e9")}, "seconds: "),
        ({"kind": "large_body", "bytes": 1}, "bytes: "),
        ({"kind": "redirect", "location": "http://x/", "status": 200}, "status: "),
    ],
)
def test_an_order_that_does_not_fit_is_refused_in_one_line(
    stand_in: StandInClient, order: dict[str, object], reason: str
) -> None:
    with pytest.raises(StandInControlError) as refusal:
        stand_in.faults(order)
    assert str(refusal.value).startswith(reason)
    assert "\n" not in str(refusal.value)


def test_of_a_list_with_one_wrong_order_none_is_queued(stand_in: StandInClient) -> None:
    with pytest.raises(StandInControlError, match=r"^1\.times: "):
        stand_in.faults({"kind": "hang"}, {"kind": "hang", "times": -1})
    assert stand_in.faults() == []


def test_every_kind_of_fault_is_documented(request: pytest.FixtureRequest) -> None:
    documentation = (request.config.rootpath / "docs" / "reference" / "stand-in.md").read_text(encoding="utf-8")
    assert [kind for kind in sorted(KINDS) if f"| `{kind}` |" not in documentation] == []
