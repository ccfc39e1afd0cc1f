"""Answers of the endpoint: status, headers and body, and what they mean."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from tests.fuzz.target import Target
from worker.core.envelope import MESSAGE_CAP
from worker.core.outcome import Answer, Confirmed, Hold, Rejected, Retry, TooLarge, decide
from worker.core.rate_headers import HEADERS, RATE_MAX, read_rate_headers

_NOW: Final = 1_795_460_847.757
_REST_MAX: Final = 3600.0
_HOLDS: Final = frozenset({"credentials", "app_unavailable", "endpoint_refuses", "redirect"})
_NAMES: Final = {name.lower(): name for name in HEADERS}
_COUNT_MAX: Final = 2**31 - 1


def _told(data: bytes) -> Answer:
    """The status, then a line for each header, a blank line and the body."""
    head, _, body = data.partition(b"\n\n")
    status, *lines = head.split(b"\n")
    rate: dict[str, str] = {}
    retry_after = None
    for line in lines:
        name, _, value = line.decode("latin-1").partition(": ")
        if name.lower() in _NAMES:
            rate[_NAMES[name.lower()]] = value
        elif name.lower() == "retry-after":
            retry_after = value
    code = int(status[:3]) if status[:3].isdigit() and len(status[:3]) == 3 else 200
    return Answer(code, retry_after, body, not status.endswith(b"!"), rate)


def _is_plain(text: str) -> bool:
    return len(text) <= MESSAGE_CAP and (text.isprintable() or not text)


def _confirms(body: bytes) -> bool:
    """Whether another parser agrees that this is a success: nothing else may ever confirm a change."""
    found: Any = json.loads(body.removeprefix(b"\xef\xbb\xbf"))
    return bool(found["status"] == 200 and found["error"]["code"] == "")


def run(data: bytes) -> str:
    """Decides the outcome, and reads the rate that the headers state."""
    answer = _told(data)
    stated = read_rate_headers(answer.rate_headers, _REST_MAX)
    assert 0 <= stated.rate <= RATE_MAX
    assert 0 <= stated.rest_seconds <= _REST_MAX
    assert not (stated.garbage and (stated.rate or stated.rest_seconds))
    for records in (1, 2):
        outcome = decide(answer, records, _NOW)
        match outcome:
            case Confirmed(inserted, deleted):
                assert answer.readable
                assert answer.status == 200
                assert _confirms(answer.body), "confirmed, although another parser reads no success"
                assert 0 <= inserted <= _COUNT_MAX
                assert 0 <= deleted <= _COUNT_MAX
            case Retry(after_seconds, _, error, _):
                assert after_seconds is None or (math.isfinite(after_seconds) and after_seconds >= 0)
                assert _is_plain(error)
            case Rejected(code, field, message, _):
                assert all(map(_is_plain, (code, field, message)))
            case Hold(reason, error, after_seconds):
                assert after_seconds is None or (math.isfinite(after_seconds) and after_seconds >= 0)
                assert reason in _HOLDS
                assert _is_plain(error)
            case TooLarge(error):
                assert records > 1
                assert _is_plain(error)
    if answer.rate_headers:
        return "rate unreadable" if stated.garbage else "rate stated" if any(stated[:2]) else "no rate stated"
    return type(outcome).__name__


TARGET: Final = Target(
    "answers",
    "an answer of the endpoint: status, headers, body",
    run,
    frozenset({"Confirmed", "Retry", "Rejected", "Hold", "TooLarge"})
    | {"rate unreadable", "rate stated", "no rate stated"},
    [
        b'200\n\n{"status":200,"error":{"code":"","message":"","field":""},"data":{"countInserted":1,"countDeleted":0}}',
        b'422\n\n{"status":422,"error":{"code":"40002","message":"m","field":"103"}}',
        b'200\n\n{"status":"413","error":{"code":40002,"field":"101"}}',
        b"429\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\n\n",
        b"503\nRetry-After: 1.5\n\n<html>",
        b'200\nRateLimit-Policy: "default";q=100;w=10\nRateLimit: "default";r=0;t=5\n\n',
        b"200\nRateLimit-Limit: 100;w=10\nRateLimit-Remaining: 0\nRateLimit-Reset: 5\n\n",
        b"200\nRateLimit: limit=100, remaining=0, reset=5\n\n",
        b"413!\n\n",
    ],
    [
        b'"status":',
        b'"error":',
        b'"code":',
        b'"field":',
        b'"message":',
        b'"data":',
        b'"countInserted":',
        b"null",
        b"1e999",
        b"Retry-After: ",
        b"RateLimit: ",
        b"RateLimit-Policy: ",
        b"RateLimit-Limit: ",
        b"RateLimit-Reset: ",
        b";w=",
        b";q=",
        b'"40002"',
        b'"40001"',
        b'"49201"',
        b'"50001"',
        b'"99999"',
        b"491",
        b"492",
        b"\\ud800",
        b"\xef\xbb\xbf",
        b"{}",
    ],
)
