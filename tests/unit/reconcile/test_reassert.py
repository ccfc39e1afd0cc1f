"""What is said again of the ledger: each pair has its turn, nothing newer is overruled, the count says its bounds."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.snapshot import idle_status
from worker.core.codec import encode_remembered
from worker.core.pair import Remembered, state_of, verdict
from worker.reconcile.reassert import WHOLE, Share, again, batched, each_change, missing

if TYPE_CHECKING:
    from worker.admin.status import Status

T = 1_795_460_847_757
PAIRS = [b"%d\x1f%d" % (n % 40, n) for n in range(4_000)]
ALL = Share(0, WHOLE)


@pytest.mark.parametrize("percent", [0.001, 3, 10, 33.3, 50, 100])
def test_as_many_runs_as_there_are_shares_have_every_pair(percent: float) -> None:
    runs: list[dict[str, Any]] = []
    left = set(PAIRS)
    for _ in range(ceil(100 / percent) if percent > 1 else 1):
        share = Share.of(percent, runs, T)
        chosen = {pair for pair in PAIRS if share.has(pair)}
        assert len(chosen) <= 1.3 * len(PAIRS) * percent / 100 + 5
        left -= chosen
        runs = [{"reassert": None}, {"reassert": {"end": share.end}}, *runs]
    assert not left or percent < 1


def test_two_runs_after_each_other_have_no_pair_in_common() -> None:
    first = Share.of(10, [], T)
    second = Share.of(10, [{}, {"reassert": {"end": first.end}}], T)
    assert not {pair for pair in PAIRS if first.has(pair)} & {pair for pair in PAIRS if second.has(pair)}
    assert 300 < sum(map(first.has, PAIRS)) < 500


def test_the_share_has_some_of_every_owner_and_partition() -> None:
    share = Share(0, WHOLE // 10)
    assert len({pair.partition(b"\x1f")[0] for pair in PAIRS if share.has(pair)}) == 40


def test_what_is_believed_confirmed_is_said_a_millisecond_later() -> None:
    entries = [
        (b"1\x1f1", Remembered("upsert", 0, T)),
        (b"1\x1f2", Remembered("delete", T, T - 5)),
        (b"1\x1f3", Remembered("upsert", 0, 0)),  # without a time
        (b"1\x1f4", Remembered("upsert", 0, T)),  # dead letters
        (b"1\x1f5", Remembered("upsert", 0, T + 60_000)),  # ahead
        (b"1\x1f6", Remembered("upsert", T, 0)),  # without a time, after a delete
        (b"1\x1f7", Remembered("upsert", 0, T - 9)),
        (b"1\x1f7", Remembered("delete", T, 0)),  # the newer ledger counts
    ]
    found = again([(pair, encode_remembered(each)) for pair, each in entries], [b"1\x1f4", b"9\x1f9"], ALL, T + 1)
    assert found == (5, 2, 1, [(b"1\x1f1", T + 1)])
    (change,) = each_change(found.changes)
    assert (change.owner, change.contact, change.op, change.at) == ("1", "1", "upsert", T + 1)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(-60, 60))
def test_a_delete_that_was_on_its_way_ends_as_without_it(upsert_at: int, delete_at: int, late: int) -> None:
    known = Remembered("upsert", T + delete_at if delete_at < upsert_at else 0, T + upsert_at)
    found = again([(b"1\x1f2", encode_remembered(known))], [], ALL, T + 10_000)
    ((_, at),) = found.changes
    assert verdict(state_of("upsert", at, T), known, "resend").op == "upsert"  # it is sent, not stale
    said_again = Remembered("upsert", known.delete_at, at)
    delete = state_of("delete", known.upsert_at + late, T)
    if late:  # of the same millisecond it lost its right to the upsert that was said again
        assert verdict(delete, known, "resend").op == verdict(delete, said_again, "resend").op


def test_changes_come_in_lists_of_a_size() -> None:
    changes = list(each_change([(b"1\x1f%d" % n, T) for n in range(7)]))
    assert [len(page) for page in batched(changes, 3)] == [3, 3, 1]


# The count


def seen(*, waiting: int = 0, **totals: int) -> Status:
    return idle_status(backlog_events=waiting, totals=totals)


@pytest.mark.parametrize(
    ("before", "after", "upserts", "least", "most"),
    [
        ({}, {"events": 100, "inserted": 7, "upserts_confirmed": 100}, 0, 7, 7),
        ({}, {"events": 103, "inserted": 7}, 0, 4, 7),  # three of others
        ({}, {"events": 120, "inserted": 7}, 0, 0, 7),
        ({}, {"events": 105, "inserted": 7}, 5, 2, 7),  # five new ones of the source
        ({"events": 2}, {"events": 102, "inserted": 7}, 0, 5, 7),  # two waited before
        ({}, {"events": 100, "inserted": 7, "repairs": 1}, 0, 6, 7),
        ({}, {"events": 100, "inserted": 7, "retries": 1}, 0, 7, 100),  # an answer may have been lost
        ({}, {"events": 100, "inserted": 7, "waiting": 1}, 0, 0, 100),
        ({}, {"events": 500, "inserted": 400}, 0, 0, 100),
        ({}, {"events": 100}, 0, 0, 0),
    ],
)
def test_how_many_were_missing_is_told_with_its_bounds(
    before: dict[str, int], after: dict[str, int], upserts: int, least: int, most: int
) -> None:
    sent = 100 + upserts
    found = missing(seen(**before), seen(**after), sent=sent, upserts=upserts, reasserted=100)
    assert found == {"at_least": least, "at_most": most}
