"""Every row of the endpoint's answers, and who is believed where they disagree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.core.outcome import Answer, Confirmed, Hold, NoAnswer, Outcome, Rejected, Retry, TooLarge, decide

NOW = 1_795_460_847.0
MANY = 500


def envelope(status: Any = 200, code: Any = "", field: Any = "", message: Any = "") -> bytes:
    error = {"code": code, "message": message, "field": field}
    return json.dumps({"status": status, "error": error, "data": {"countInserted": 3, "countDeleted": 1}}).encode()


def judge(status: int, body: bytes = b"", records: int = MANY, retry_after: str | None = None) -> Outcome:
    return decide(Answer(status, retry_after, body), records, NOW)


def kind(outcome: Outcome) -> str:
    """Name an outcome with what decides about it, for the tables below."""
    match outcome:
        case Retry():
            return "Retry ambiguous" if outcome.ambiguous else "Retry"
        case Hold():
            return f"Hold {outcome.reason}"
        case Rejected():
            return f"Rejected {outcome.field}".strip() if outcome.known else "Unknown"
        case _:
            return type(outcome).__name__


# Success


def test_status_200_twice_and_no_error_code_is_confirmed_with_the_endpoints_counts() -> None:
    assert judge(200, envelope()) == Confirmed(inserted=3, deleted=1)


@pytest.mark.parametrize(
    ("data", "confirmed"),
    [
        ({"countInserted": 2}, Confirmed(2, 0)),
        ({"countInserted": None, "countDeleted": 1}, Confirmed(0, 1)),
        ({"countInserted": 1.5, "countDeleted": 10**30}, Confirmed(0, 2**31 - 1)),
        ({}, Confirmed(0, 0)),
        (None, Confirmed(0, 0)),
        ([1], Confirmed(0, 0)),
    ],
)
def test_counts_that_are_missing_are_zero_and_the_success_stands(data: Any, confirmed: Confirmed) -> None:
    body = {"status": 200, "error": {"code": "", "message": "", "field": ""}, "data": data}
    assert judge(200, json.dumps(body).encode()) == confirmed


@pytest.mark.parametrize("count", [-1, -0.5, "2", "", True, [], {}])
@pytest.mark.parametrize("name", ["countInserted", "countDeleted"])
def test_a_count_that_is_negative_or_no_number_confirms_nothing(name: str, count: Any) -> None:
    body = {"status": 200, "error": {"code": "", "message": "", "field": ""}, "data": {name: count}}
    assert kind(judge(200, json.dumps(body).encode())) == "Retry ambiguous"


def test_a_success_without_data_and_with_fields_we_do_not_know_is_a_success() -> None:
    assert judge(200, b'{"status":200,"error":{"code":"","trace":[1]},"took":3}') == Confirmed(0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"null",
        b"[]",
        b"{}",
        b"<html>welcome</html>",
        b'{"status":200}',
        b'{"status":200,"error":null}',
        b'{"status":200,"error":{}}',
        b'{"status":200,"error":{"code":null}}',
        b'{"status":20000000000,"error":{"code":"5"}}',
        b'{"status":"200","error":{"code":""}}',
        b'{"status":true,"error":{"code":""}}',
        b'{"status":200,"error":""}',
        b'{"error":{"code":""}}',
        envelope()[:-1],
        b"\xff" + envelope(),
        envelope() + envelope(),
        b"[" * 100_000,
    ],
)
def test_a_200_that_is_not_exactly_a_success_is_tried_again_and_may_have_acted(body: bytes) -> None:
    assert kind(judge(200, body)) == "Retry ambiguous"


# No answer


@pytest.mark.parametrize("sent", [True, False])
def test_no_answer_is_tried_again_and_in_doubt_only_if_something_was_sent(sent: bool) -> None:  # noqa: FBT001 - a case
    assert decide(NoAnswer(sent=sent, why="went\naway"), MANY, NOW) == Retry(None, ambiguous=sent, error="went away")


def test_an_answer_that_was_cut_short_confirms_nothing_whatever_came_of_it() -> None:
    cut = Answer(200, None, envelope(), readable=False)
    assert decide(cut, MANY, NOW) == Retry(None, ambiguous=True, error="HTTP 200, answer cut short")
    assert kind(decide(Answer(401, None, b"", readable=False), MANY, NOW)) == "Hold credentials"


# The HTTP status alone: an intermediary spoke, or nobody we can read


@pytest.mark.parametrize(
    ("statuses", "wanted"),
    [
        ([100, 101, 199], "Retry ambiguous"),
        ([200, 201, 202, 204, 206, 299], "Retry ambiguous"),
        ([300, 301, 302, 303, 304, 307, 308, 399], "Hold redirect"),
        ([401, 403, 491], "Hold credentials"),
        ([492], "Hold app_unavailable"),
        ([400, 402, 404, 405, 406, 407, 409, 410, 411, 412, 414, 415, 417, 418], "Hold endpoint_refuses"),
        ([421, 422, 423, 424, 426, 428, 431, 451, 499], "Hold endpoint_refuses"),
        ([408], "Retry ambiguous"),
        ([425, 429], "Retry"),
        ([413], "TooLarge"),
        ([500, 501, 502, 503, 504, 505, 507, 511, 520, 524, 529, 599], "Retry ambiguous"),
        ([600, 999], "Retry ambiguous"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b'{"status":502,"error":"Bad Gateway"}'])
def test_a_status_without_an_envelope(statuses: list[int], wanted: str, body: bytes) -> None:
    assert {status: kind(judge(status, body)) for status in statuses} == dict.fromkeys(statuses, wanted)


# The endpoint's own word: HTTP status, envelope status and code agree

AGREEING = [
    (400, "40001", "", "Hold credentials"),
    (401, "40100", "", "Hold credentials"),
    (401, "40101", "", "Hold credentials"),
    (401, "40199", "", "Hold credentials"),
    (401, "40106", "", "Hold credentials"),
    (491, "49101", "", "Hold credentials"),
    (491, "49199", "", "Hold credentials"),
    (403, "49101", "", "Hold credentials"),
    (491, "", "", "Hold credentials"),
    (492, "49201", "", "Hold app_unavailable"),
    (492, "49202", "", "Hold app_unavailable"),
    (403, "49203", "", "Hold app_unavailable"),
    (492, "", "", "Hold app_unavailable"),
    (401, "49201", "", "Hold app_unavailable"),
    (403, "40301", "", "Unknown"),
    (403, "", "", "Hold credentials"),
    (403, "49000", "", "Unknown"),
    (403, "49204", "", "Unknown"),
    (400, "99999", "", "Unknown"),
    (500, "99999", "", "Unknown"),
    (503, "99999", "", "Retry"),
    (403, "40002", "102", "Unknown"),
    (400, "40002", "101", "TooLarge"),
    (400, "40002", "102", "Rejected 102"),
    (400, "40002", "103", "Rejected 103"),
    (400, "40002", "104", "Rejected 104"),
    (400, "40002", "", "Rejected"),
    (400, "40002", "105", "Unknown"),
    (400, "40002", "contacts", "Unknown"),
    (400, "40003", "", "Unknown"),
    (400, "4000", "", "Unknown"),
    (400, "4900", "", "Unknown"),
    (400, "401000", "", "Unknown"),
    (400, "", "", "Hold endpoint_refuses"),
    (404, "40401", "", "Unknown"),
    (408, "40801", "", "Retry"),
    (413, "41301", "", "TooLarge"),
    (422, "42201", "102", "Unknown"),
    (422, "", "102", "Rejected 102"),
    (425, "", "", "Retry"),
    (429, "42901", "", "Retry"),
    (500, "50001", "", "Retry"),
    (500, "", "", "Retry"),
    (503, "50301", "", "Retry"),
    (502, "50001", "", "Retry ambiguous"),  # a gateway, even one with our envelope, cannot say what lies behind it
    (504, "", "", "Retry ambiguous"),
]


@pytest.mark.parametrize(("status", "code", "field", "wanted"), AGREEING)
def test_an_error_code_under_its_own_status(status: int, code: str, field: str, wanted: str) -> None:
    assert kind(judge(status, envelope(status, code, field))) == wanted


@pytest.mark.parametrize(("status", "code", "field", "wanted"), [row for row in AGREEING if row[0] != 422])
def test_an_error_envelope_under_http_200_is_the_same_failure(status: int, code: str, field: str, wanted: str) -> None:
    assert kind(judge(200, envelope(status, code, field))) == wanted


@pytest.mark.parametrize(("code", "field"), [(40002, 102), ("40002", "102"), (" 40002 ", " 102 ")])
def test_codes_and_fields_are_read_as_strings_and_as_numbers(code: Any, field: Any) -> None:
    assert judge(400, envelope("400", code, field, "no")) == Rejected("40002", "102", "no")


def test_field_null_is_no_field_but_a_field_of_another_shape_is_not_taken_for_none() -> None:
    assert kind(judge(400, envelope(400, "40002", None))) == "Rejected"
    assert kind(judge(400, envelope(400, "40002", ["102"]))) == "Unknown"


# Where they disagree, the one that confirms less


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (500, envelope(200), "Retry"),
        (503, envelope(200), "Retry"),
        (502, envelope(200), "Retry ambiguous"),
        (201, envelope(200), "Retry ambiguous"),
        (202, envelope(200), "Retry ambiguous"),
        (204, envelope(200), "Retry ambiguous"),
        (302, envelope(200), "Hold redirect"),
        (400, envelope(200), "Hold endpoint_refuses"),
        (401, envelope(200), "Hold credentials"),
        (404, envelope(200), "Hold endpoint_refuses"),
        (413, envelope(200), "TooLarge"),
        (422, envelope(200), "Rejected"),
        (429, envelope(200), "Retry"),
        (200, envelope(201), "Retry"),
        (200, envelope(999), "Retry"),
        (200, envelope(302), "Hold redirect"),
        (200, envelope(422), "Hold endpoint_refuses"),  # only the HTTP status rejects without a code
        (200, envelope(200, "50001"), "Retry"),
        (200, envelope(200, "40001"), "Hold credentials"),
        (200, envelope(200, "40002", "103"), "Rejected 103"),
        (200, envelope(200, "40002", "101"), "TooLarge"),
        (200, envelope(200, "40099"), "Unknown"),
        (200, envelope(200, "77777"), "Unknown"),
        (200, envelope(200, 1.5), "Retry"),
        (200, envelope(200, 0), "Retry"),
        (200, envelope(504), "Retry ambiguous"),
        (500, envelope(400, "40002", "102"), "Retry"),  # to reject would settle a record, to retry settles none
        (400, envelope(500, "40002", "102"), "Retry"),
        (400, envelope(400, "50001"), "Retry"),
        (422, envelope(500, "50001"), "Retry"),
        (413, envelope(400, "40002", "102"), "TooLarge"),
        (422, envelope(400, "40002", "101"), "TooLarge"),
        (422, envelope(400, "40001"), "Hold credentials"),
        (503, envelope(401, "40101"), "Hold credentials"),
        (401, envelope(500, "50001"), "Hold credentials"),
        (404, envelope(400, "40002", "102"), "Unknown"),
        (302, envelope(401, "40101"), "Hold credentials"),
    ],
)
def test_where_the_witnesses_disagree_the_one_that_confirms_less_is_believed(
    status: int, body: bytes, wanted: str
) -> None:
    assert kind(judge(status, body)) == wanted


# One record


@pytest.mark.parametrize(("status", "body"), [(413, b""), (400, envelope(400, "40002", "101"))])
def test_a_single_record_cannot_be_too_large_so_the_endpoint_is_held_and_the_record_kept(
    status: int, body: bytes
) -> None:
    assert kind(judge(status, body, records=2)) == "TooLarge"
    assert kind(judge(status, body, records=1)) == "Hold endpoint_refuses"


# What is said about it


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, b""),
        (503, b""),
        (401, b""),
        (404, b"<html>"),
        (302, b""),
        (422, envelope(422, "40002", "102")),
        (404, envelope(404, "40401")),
    ],
)
@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Mon, 23 Nov 2026 23:07:57 GMT", None), ("soon", None)])
def test_a_failure_carries_what_retry_after_asks_for(
    status: int, body: bytes, header: str, seconds: float | None
) -> None:
    outcome = judge(status, body, retry_after=header)
    assert isinstance(outcome, (Retry, Rejected, Hold))
    if header.endswith("GMT"):
        seconds = 1_795_475_277.0 - NOW
    assert outcome.after_seconds == seconds


def test_the_error_names_status_code_and_field_and_never_the_message() -> None:
    secret = "owner 4711 is unknown"
    held = judge(400, envelope(401, "40101", "", secret))
    assert held == Hold("credentials", "HTTP 400, envelope 401, code 40101")
    too_large = judge(400, envelope(400, "40002", "101", secret))
    assert too_large == TooLarge("HTTP 400, code 40002, field 101")
    retry = judge(503, b"4711")
    assert retry == Retry(None, ambiguous=True, error="HTTP 503, no readable envelope")


def test_a_code_or_field_that_is_no_number_of_theirs_is_not_repeated() -> None:
    retry = judge(503, envelope(503, "user-4711\n", "1234567"))
    assert retry == Retry(None, ambiguous=False, error="HTTP 503, code unknown, field unknown")


def test_a_rejection_keeps_the_endpoints_message_on_one_short_line() -> None:
    outcome = judge(400, envelope(400, "40002", "102", "bad\x00\x1b[31m\u2028" + "y" * 1000))
    assert isinstance(outcome, Rejected)
    assert outcome.message == "bad  [31m " + "y" * 190
    assert len(outcome.message) == 200


# Whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([200, "", "40002", "102"]),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["status", "error", "data", "code", "field"]), inner)
    ),
    max_leaves=12,
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from([200, 400, 500]) | JSON,
        "error": st.fixed_dictionaries({}, optional={"code": st.just("") | JSON, "field": JSON, "message": JSON})
        | JSON,
        "data": JSON,
    },
)
BODIES = st.binary() | ENVELOPES.map(json.dumps).map(str.encode) | JSON.map(json.dumps).map(str.encode)


@given(
    status=st.sampled_from([200, 400, 413, 422, 429, 500]) | st.integers(-(10**9), 10**9),
    body=BODIES,
    retry_after=st.none() | st.text(),
    readable=st.booleans(),
    records=st.integers(0, 1000),
)
@example(200, b'{"status":' + b"9" * 5000 + b',"error":{}}', None, True, 1)
@example(200, b'{"status":200,"error":{"code":' + b"9" * 5000 + b"}}", None, True, 1)
@example(200, b'{"status":200,"error":{"code":"\\ud800"}}', None, True, 1)
def test_no_answer_raises_and_only_the_exact_success_confirms(
    status: int,
    body: bytes,
    retry_after: str | None,
    readable: bool,  # noqa: FBT001 - a case
    records: int,
) -> None:
    outcome = decide(Answer(status, retry_after, body, readable), records, NOW)
    assert isinstance(outcome, Confirmed) == (status == 200 and readable and is_exact_success(body))


def is_exact_success(body: bytes) -> bool:
    try:
        read = json.loads(body)
    except ValueError:
        return False
    return (
        isinstance(read, dict)
        and read.get("status") == 200
        and isinstance(read.get("error"), dict)
        and read["error"].get("code") == ""
    )


def test_a_byte_order_mark_before_the_answer_changes_nothing() -> None:
    body = {"status": 200, "error": {"code": ""}, "data": {}}
    assert judge(200, b"\xef\xbb\xbf" + json.dumps(body).encode()) == Confirmed(0, 0)
