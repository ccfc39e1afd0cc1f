"""The stand-in answers as section 1 of contract.md says, remembers what it did, and can be told how to stand."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.sync_request import client_of, delete, key, sync, upsert
from tests.support.waiting import wait_until
from worker.standin.client import StandInControlError
from worker.standin.rules import BODY_LIMIT_BYTES, SYNC_PATH

if TYPE_CHECKING:
    from worker.standin.client import StandInClient


def confirmed(answer: httpx.Response) -> tuple[int, int]:
    """What the answer says was inserted and deleted; fails unless it is the contract's envelope to the letter."""
    body = answer.json()
    inserted, deleted = body["data"]["countInserted"], body["data"]["countDeleted"]
    data = {"countInserted": inserted, "countDeleted": deleted}
    assert body == {"status": 200, "error": {"code": "", "message": "", "field": ""}, "data": data}
    assert answer.status_code == 200
    return inserted, deleted


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """HTTP status, code and field of an answer that refuses."""
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"], body["error"]["field"]


def test_it_counts_what_really_changed(stand_in: StandInClient, client: httpx.Client) -> None:
    assert confirmed(sync(client, upsert("1", "2"), upsert("1", "3"), delete("1", "9"))) == (2, 0)
    assert confirmed(sync(client, upsert("1", "2"), delete("1", "3"))) == (0, 1)
    assert stand_in.contacts() == {("1", "2")}


def test_a_contact_is_one_way(stand_in: StandInClient, client: httpx.Client) -> None:
    sync(client, upsert("1", "6"), upsert("6", "1"))
    sync(client, delete("6", "1"))
    assert stand_in.contacts() == {("1", "6")}
    assert stand_in.contacts(owner="6") == set()


@pytest.mark.parametrize("records", [[upsert("1", "2"), delete("1", "2")], [delete("1", "2"), upsert("1", "2")]])
def test_a_pair_twice_in_one_request_is_deleted_whatever_the_order(
    stand_in: StandInClient, client: httpx.Client, records: list[object]
) -> None:
    sync(client, *records)
    assert stand_in.contacts() == set()
    assert stand_in.counts()["pair_twice"] == 1


def test_it_counts_requests_with_an_upsert_after_a_delete(stand_in: StandInClient, client: httpx.Client) -> None:
    sync(client, upsert("1", "2"), delete("1", "3"))
    assert stand_in.counts()["upsert_after_delete"] == 0
    sync(client, delete("1", "3"), upsert("1", "4"))
    assert stand_in.counts()["upsert_after_delete"] == 1
    assert [record["op"] for record in stand_in.applied()[-2:]] == ["upsert", "delete"]


@pytest.mark.parametrize("identifier", ["é", "名前", "\U0001f600", 'a"b\\c', "a b", "a:b", "\u2028", "x" * 256, "{7}"])
def test_ids_of_any_legal_characters_are_kept_as_they_came(
    stand_in: StandInClient, client: httpx.Client, identifier: str
) -> None:
    assert confirmed(sync(client, upsert(identifier, identifier))) == (1, 0)
    assert stand_in.contacts(owner=identifier) == {(identifier, identifier)}


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, (400, "40001", "")),
        ({"Server-Key": ""}, (400, "40001", "")),
        ({"Server-Key": "not base64!"}, (401, "40102", "")),
        (key("no-colon"), (401, "40102", "")),
        (key("stand-in:"), (401, "40102", "")),
        (key("stand-in:wrong"), (401, "40103", "")),
        (key("wrong:stand-in"), (401, "40103", "")),
    ],
)
def test_a_wrong_key_is_refused_before_the_body_is_looked_at(
    stand_in: StandInClient, headers: dict[str, str], answer: tuple[int, str, str]
) -> None:
    with client_of(stand_in.url, headers) as stranger:
        assert refused(sync(stranger, upsert("1", "2"))) == answer
        assert refused(stranger.post(SYNC_PATH, content=b"not JSON")) == answer
    assert stand_in.contacts() == set()


def test_the_message_for_a_missing_key_is_the_platforms(stand_in: StandInClient) -> None:
    with client_of(stand_in.url, {}) as stranger:
        assert sync(stranger).json()["error"]["message"] == "Request headers are required (Server-Key)"


def test_a_key_can_be_rotated_and_an_empty_one_accepts_any(stand_in: StandInClient, client: httpx.Client) -> None:
    shown = stand_in.settings(key_id="next", key_secret="secret:with-colon")
    assert "secret:with-colon" not in str(shown)
    assert refused(sync(client, upsert("1", "2"))) == (401, "40103", "")
    with client_of(stand_in.url, key("next:secret:with-colon")) as rotated:
        assert confirmed(sync(rotated, upsert("1", "2"))) == (1, 0)
    stand_in.settings(key_id="", key_secret="")
    assert confirmed(sync(client, upsert("1", "3"))) == (1, 0)


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"[]", b"{}", b'{"contacts": []}', b'{"contacts": {"a": 1}}', b'{"contacts": [1]}']
)
def test_a_request_without_contacts_is_refused_with_field_101(client: httpx.Client, body: bytes) -> None:
    assert refused(client.post(SYNC_PATH, content=body)) == (400, "40002", "101")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"contactXCUserID": "2"}, "102"),
        ({"ownerXCUserID": "", "contactXCUserID": "2"}, "102"),
        ({"ownerXCUserID": 1, "contactXCUserID": "2"}, "102"),
        ({"ownerXCUserID": "1"}, "103"),
        ({"ownerXCUserID": "1", "contactXCUserID": None}, "103"),
        ({"ownerXCUserID": "1", "contactXCUserID": "2", "isDeleted": "true"}, "104"),
        ({"ownerXCUserID": "1", "contactXCUserID": "2", "isDeleted": 1}, "104"),
    ],
)
def test_one_wrong_record_refuses_the_whole_request_and_names_its_field(
    stand_in: StandInClient, client: httpx.Client, record: object, field: str
) -> None:
    assert refused(sync(client, upsert("7", "8"), record)) == (400, "40002", field)
    assert stand_in.contacts() == set()
    assert stand_in.applied() == []


def test_a_body_over_the_limit_is_answered_with_413(stand_in: StandInClient, client: httpx.Client) -> None:
    padding = b" " * (BODY_LIMIT_BYTES - 100)
    fitting = b'{"contacts": [{"ownerXCUserID": "1", "contactXCUserID": "2"}]' + padding + b"}"
    assert confirmed(client.post(SYNC_PATH, content=fitting)) == (1, 0)
    assert client.post(SYNC_PATH, content=fitting + b" " * 100).status_code == 413
    assert stand_in.counts()["statuses"] == {"200": 1, "413": 1}


@pytest.mark.parametrize(("refusal", "answer"), [("413", (413, "", "")), ("40002", (400, "40002", "101"))])
def test_a_batch_larger_than_the_largest_is_refused_as_chosen(
    stand_in: StandInClient, client: httpx.Client, refusal: str, answer: tuple[int, str, str]
) -> None:
    stand_in.settings(largest_batch=2, largest_batch_refusal=refusal)
    assert refused(sync(client, upsert("1", "2"), upsert("1", "3"), upsert("1", "4"))) == answer
    assert confirmed(sync(client, upsert("1", "2"), upsert("1", "3"))) == (2, 0)
    assert stand_in.counts()["largest_batch"] == 3


def test_ids_of_more_characters_than_it_allows_are_refused_by_their_field(
    stand_in: StandInClient, client: httpx.Client
) -> None:
    assert confirmed(sync(client, upsert("1", "u" * 51))) == (1, 0)  # by default there is no such limit
    stand_in.settings(id_max_characters=50)
    assert refused(sync(client, upsert("o" * 51, "2"), upsert("1", "3"))) == (400, "40002", "102")
    assert refused(sync(client, upsert("1", "3"), upsert("1", "u" * 51))) == (400, "40002", "103")
    assert confirmed(sync(client, upsert("界" * 50, "界" * 50))) == (1, 0)


def test_a_poisoned_id_or_pair_refuses_every_request_that_holds_it(
    stand_in: StandInClient, client: httpx.Client
) -> None:
    stand_in.settings(poisoned=["bad", ["1", "9"]])
    assert refused(sync(client, upsert("1", "2"), upsert("bad", "2"))) == (400, "40002", "102")
    assert refused(sync(client, upsert("1", "bad"))) == (400, "40002", "103")
    assert refused(sync(client, upsert("1", "9"))) == (400, "40002", "103")
    assert confirmed(sync(client, upsert("9", "1"))) == (1, 0)
    assert stand_in.contacts() == {("9", "1")}


def test_more_requests_than_the_rate_allows_are_told_when_to_come_again(
    stand_in: StandInClient, client: httpx.Client
) -> None:
    stand_in.settings(rate_limit_per_second=0.01)
    assert confirmed(sync(client, upsert("1", "2"))) == (1, 0)
    answer = sync(client, upsert("1", "3"))
    assert refused(answer) == (429, "", "")
    assert 1 <= int(answer.headers["retry-after"]) <= 100


def test_latency_holds_every_request_back(stand_in: StandInClient, client: httpx.Client) -> None:
    stand_in.settings(latency_seconds=0.2)
    began = time.monotonic()
    sync(client, upsert("1", "2"))
    assert time.monotonic() - began >= 0.2


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(
    stand_in: StandInClient, client: httpx.Client
) -> None:
    """With Nagle's algorithm on, each answer but the first takes 40 ms: a hundred take 4 s."""
    began = time.monotonic()
    for number in range(100):
        sync(client, upsert("1", str(number)))
    assert time.monotonic() - began < 3
    assert len(stand_in.contacts()) == 100


def test_the_history_tells_what_took_effect_in_which_order(stand_in: StandInClient, client: httpx.Client) -> None:
    sync(client, upsert("1", "2"))
    sync(client, {"ownerXCUserID": "1"})
    sync(client, delete("1", "2"), delete("1", "3"))
    told = [(record["sequence"], record["request"], record["op"], record["contact"]) for record in stand_in.applied()]
    assert told == [(1, 1, "upsert", "2"), (2, 3, "delete", "2"), (3, 3, "delete", "3")]
    assert [record["sequence"] for record in stand_in.applied(since=2)] == [3]
    first, second, third = stand_in.requests()
    assert first["records"] == [{"owner": "1", "contact": "2", "op": "upsert"}]
    assert first["applied_at"] is not None
    assert first["received_at"] <= first["applied_at"] <= second["received_at"] <= third["received_at"]
    assert (second["status"], second["code"], second["applied_at"]) == (400, "40002", None)
    assert stand_in.requests(since=2) == [third]


def test_a_cleared_history_leaves_contacts_counts_and_numbering(stand_in: StandInClient, client: httpx.Client) -> None:
    sync(client, upsert("1", "2"))
    stand_in.clear_history()
    assert stand_in.requests() == []
    assert stand_in.applied() == []
    sync(client, upsert("1", "3"))
    assert stand_in.counts()["requests"] == 2
    assert [record["sequence"] for record in stand_in.applied()] == [2]
    assert stand_in.contacts() == {("1", "2"), ("1", "3")}


def test_it_counts_how_many_requests_are_in_flight_at_once(stand_in: StandInClient) -> None:
    stand_in.faults({"kind": "hang"})

    def deliver(number: int) -> None:
        with client_of(stand_in.url) as client:
            sync(client, upsert("1", str(number)))

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: stand_in.counts()["in_flight"] == 3, what="three requests are in flight")
    stand_in.remove_faults()
    for thread in threads:
        thread.join()
    counts = stand_in.counts()
    assert (counts["in_flight"], counts["most_in_flight"]) == (0, 3)


def test_all_contacts_come_sorted_however_many(stand_in: StandInClient, client: httpx.Client) -> None:
    for batch in range(12):
        sync(client, *(upsert(str(batch), str(number)) for number in range(1000)))
    pairs = httpx.get(f"{stand_in.url}/_stand-in/contacts", trust_env=False).json()
    assert len(pairs) == 12_000
    assert pairs == sorted(pairs)


def test_a_reset_takes_everything_back_to_the_beginning(stand_in: StandInClient, client: httpx.Client) -> None:
    untouched = stand_in.counts()
    stand_in.settings(latency_seconds=0.001)
    stand_in.faults({"kind": "status", "status": 503, "times": 2})
    sync(client, upsert("1", "2"))
    stand_in.reset()
    assert stand_in.counts() == untouched
    assert stand_in.faults() == []
    assert stand_in.settings()["latency_seconds"] == 0
    assert confirmed(sync(client, upsert("1", "2"))) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"latency": 1}, "latency: Extra inputs"),
        ({"latency_seconds": -1}, "latency_seconds: "),
        ({"latency_seconds": "1"}, "latency_seconds: "),
        ({"largest_batch": 0}, "largest_batch: "),
        ({"poisoned": [["1"]]}, "poisoned: each entry must be an id, or a list"),
        ({"key_id": "a:b"}, "key_id: "),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line_and_change_nothing(
    stand_in: StandInClient, changes: dict[str, object], reason: str
) -> None:
    before = stand_in.settings()
    with pytest.raises(StandInControlError, match=reason) as refusal:
        stand_in.settings(largest_batch_refusal="40002", **changes)
    assert "\n" not in str(refusal.value)
    assert stand_in.settings() == before


def test_a_number_in_the_query_that_is_none_is_refused(stand_in: StandInClient) -> None:
    long = httpx.get(f"{stand_in.url}/_stand-in/requests?since={'9' * 5_000}", trust_env=False)
    assert long.status_code == 400
    answer = httpx.get(f"{stand_in.url}/_stand-in/requests?since=-1", trust_env=False)
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "since: must be a number of 0 or more, in decimal digits"},
    )


def test_it_says_that_it_is_well(stand_in: StandInClient) -> None:
    answer = httpx.get(f"{stand_in.url}/_stand-in/health", trust_env=False).json()
    assert answer["status"] == "ok"
    assert answer["now"] <= time.monotonic()


def test_what_is_no_request_is_refused_without_a_traceback(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 5) as connection:
        connection.sendall(b"GET /nothing HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    confirmed(sync(client, upsert("1", "2")))
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
