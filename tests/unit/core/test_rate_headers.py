"""Limits that an endpoint states: every form of the drafts, and garbage, which says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.rate_headers import HEADERS, NOTHING, Stated, read_rate_headers


@pytest.mark.parametrize(
    ("headers", "stated"),
    [
        ({}, NOTHING),
        ({"RateLimit-Policy": '"default";q=100;w=10'}, Stated(10.0)),
        ({"RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=1000'}, Stated(1.0)),
        ({"RateLimit-Policy": '"a";q=100;w=10;qu="requests";pk=:cHsdsRa894==:'}, Stated(10.0)),
        ({"RateLimit-Policy": '"a";q=65535;qu="content-bytes";w=10'}, NOTHING),
        ({"RateLimit": '"default";r=50;t=30'}, NOTHING),
        ({"RateLimit": '"default";r=0;t=3', "RateLimit-Policy": '"default";q=100;w=10'}, Stated(10.0, 3.0)),
        ({"RateLimit-Policy": "100;w=10", "RateLimit": "limit=100, remaining=0, reset=5"}, Stated(10.0, 5.0)),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, NOTHING),
        ({"RateLimit-Limit": "100, 100;w=10", "RateLimit-Remaining": "0", "RateLimit-Reset": "7"}, Stated(10.0, 7.0)),
        ({"RateLimit-Limit": "100", "RateLimit-Remaining": "99", "RateLimit-Reset": "7"}, NOTHING),
    ],
)
def test_every_form_of_the_drafts_is_read(headers: dict[str, str], stated: Stated) -> None:
    assert read_rate_headers(headers, 3600) == stated


@pytest.mark.parametrize(
    ("headers", "stated"),
    [
        ({"RateLimit-Policy": '"month";q=10;w=2592000'}, NOTHING),
        ({"RateLimit-Policy": "1;w=999999999"}, NOTHING),
        ({"RateLimit-Policy": "1;w=61"}, NOTHING),
        ({"RateLimit-Policy": "1;w=60"}, Stated(1 / 60)),
        ({"RateLimit-Policy": '"month";q=10;w=2592000,"burst";q=5;w=1'}, Stated(5.0)),
        ({"RateLimit-Policy": '"month";q=10;w=2592000', "RateLimit": '"month";r=0;t=90'}, Stated(0.0, 90.0)),
        ({"RateLimit-Policy": "10;w=2592000", "RateLimit": "limit=10, remaining=0, reset=90"}, Stated(0.0, 90.0)),
        ({"RateLimit-Limit": "10;w=2592000", "RateLimit-Remaining": "0", "RateLimit-Reset": "90"}, Stated(0.0, 90.0)),
    ],
)
def test_a_policy_slower_than_one_request_a_minute_is_no_pace(headers: dict[str, str], stated: Stated) -> None:
    assert read_rate_headers(headers, 3600) == stated


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit-Policy": '"default";q=0;w=10'},
        {"RateLimit-Policy": '"default";q=100;w=0'},
        {"RateLimit-Policy": '"default";q=-1;w=1'},
        {"RateLimit-Policy": '"default";q=1e9;w=1'},
        {"RateLimit-Policy": "q=999999999999999999999;w=1"},
        {"RateLimit-Policy": '"a";q=100;w=10', "RateLimit": '"a";r=0;t=999999'},
        {"RateLimit": '"a";r=0;t=999999'},
        {"RateLimit": "none of the forms;;;"},
        {"RateLimit": "limit=100, remaining=?"},
        {"RateLimit-Remaining": "soon"},
        {"RateLimit-Policy": "x" * 5_000},
        {"RateLimit-Policy": '"\x00"'},
    ],
)
def test_garbage_says_nothing(headers: dict[str, str]) -> None:
    assert read_rate_headers(headers, 3600) == Stated(garbage=True)


@given(st.dictionaries(st.sampled_from(HEADERS), st.text(max_size=60)))
def test_no_header_raises_or_asks_for_a_standstill(headers: dict[str, str]) -> None:
    stated = read_rate_headers(headers, 3600)
    assert 0 <= stated.rest_seconds <= 3600
    assert stated.rate == 0 or stated.rate >= 1 / 60
