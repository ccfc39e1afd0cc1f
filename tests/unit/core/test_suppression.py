"""What follows for a pair with somebody who was erased: no upsert, every delete, and no memory."""

from __future__ import annotations

import hmac
from zlib import crc32

import pytest

from worker.core.batch import fill
from worker.core.codec import Mark, encode_remembered
from worker.core.entry import pair_of
from worker.core.lane import class_of
from worker.core.pair import PairState, Remembered, Side, join, state_of
from worker.core.settlement import BatchResult, Refusal, Settlement, settlement
from worker.core.slice import PartitionSlice, coalesce_prefix
from worker.core.suppression import NOBODY, Suppression, decode_suppression, encode_suppressed, keyed_hash

T = 1_795_460_847_757
KEY = b"a random key"
PAIR = pair_of(b"1", b"2")


def suppressed(*users: bytes, until_ms: int = T + 1_000) -> Suppression:
    return decode_suppression(KEY, {keyed_hash(KEY, user): encode_suppressed(KEY, user, until_ms) for user in users})


def test_a_tag_alone_suppresses_nobody() -> None:
    first = suppressed(b"1")
    same = next(each for each in (b"%d" % n for n in range(2, 10**7)) if crc32(each, first.seed) & 0xFFFF in first.tags)
    assert (first.holds(b"1", T), first.holds(same, T)) == (True, False)
    assert suppressed(b"1")._replace(seed=0, tags=frozenset()).holds(b"1", T) is False


def slice_of(*said: tuple[bytes, bytes, bytes], **known: object) -> PartitionSlice:
    """These entries as they were read: owner, contact, op; in one partition."""
    raw = [
        [b"%d-%d" % (T, i), [b"owner", owner, b"contact", contact, b"op", op, b"at", b"%d" % (T - 9 + i)]]
        for i, (owner, contact, op) in enumerate(said)
    ]
    return PartitionSlice(0, coalesce_prefix(raw, 0, 1, 500, fast=True), **known)  # type: ignore[arg-type]


def confirmed(part: PartitionSlice, *, begun_ms: int = T + 5) -> tuple[list[tuple[bytes, str]], Settlement]:
    """The records of its next request, and what is written once that was confirmed."""
    batch = fill([part], 500)
    records = [(pair, "upsert") for pair in batch.upserts] + [(pair, "delete") for pair in batch.deletes]
    into = settlement(part, batch.chosen[0], batch.repairs[0], BatchResult("confirmed", begun_ms, begun_ms))
    return records, into


def test_the_hash_is_an_hmac_of_the_id_under_the_key() -> None:
    assert keyed_hash(KEY, b"1") == hmac.new(KEY, b"1", "sha256").hexdigest().encode()
    assert keyed_hash(b"another", b"1") != keyed_hash(KEY, b"1")


@pytest.mark.parametrize("user", [b"1", b"2"])
def test_an_upsert_is_refused_as_owner_and_as_contact_and_others_go(user: bytes) -> None:
    part = slice_of((b"1", b"2", b"upsert"), (b"3", b"4", b"upsert"))
    part.judge("resend", T, suppressed(user))
    records, into = confirmed(part)
    assert records == [(pair_of(b"3", b"4"), "upsert")]
    assert (into.totals["suppressed"], into.totals["records_confirmed"], into.totals["events"]) == (1, 1, 2)
    assert into.ledger[::2] == [pair_of(b"3", b"4")]


def test_a_delete_goes_through_and_nothing_of_it_is_remembered() -> None:
    known = Remembered("upsert", 0, T + 100)  # newer than the delete, as by an app whose clock is ahead
    part = slice_of((b"1", b"2", b"delete"), ledger={PAIR: encode_remembered(known)})
    part.judge("resend", T, suppressed(b"2"))
    records, into = confirmed(part)
    assert records == [(PAIR, "delete")]
    assert (into.ledger, into.forget) == ([], [PAIR])
    assert (into.totals["records_confirmed"], into.totals["stale"]) == (1, 0)


def test_of_both_ops_the_delete_alone_goes_whichever_is_later() -> None:
    part = slice_of((b"1", b"2", b"delete"), (b"1", b"2", b"upsert"))
    part.judge("resend", T, suppressed(b"1"))
    records, into = confirmed(part)
    assert records == [(PAIR, "delete")]
    assert (into.totals["suppressed"], into.totals["superseded"]) == (1, 0)
    assert not into.keeps


def test_a_delete_after_a_late_request_stays_due_although_the_endpoint_refuses_it() -> None:
    part = slice_of(marks={PAIR: (b"as stored", Mark(T, 0))})
    part.judge("resend", T, suppressed(b"2"))
    batch = fill([part], 500)
    assert (batch.deletes, batch.repairs) == ((PAIR,), (frozenset([PAIR]),))
    refused = BatchResult("refused", T, T, refusal=Refusal("40002", "102", "", known=True))
    assert settlement(part, frozenset(), batch.repairs[0], refused).clear == []


def test_an_upsert_that_waits_is_refused_too_and_waits_no_more() -> None:
    waits = state_of("upsert", T - 50, T - 60)
    part = slice_of(pending={PAIR: waits}, classes={PAIR: class_of("upsert", bulk=False)})
    part.judge("resend", T, suppressed(b"2"))
    records, into = confirmed(part)
    assert records == []
    assert (into.totals["suppressed"], into.drop[class_of("upsert", bulk=False)]) == (1, [PAIR])


def test_what_is_not_sent_waits_without_the_upsert() -> None:
    waits = join(state_of("upsert", T - 50, T - 60), state_of("delete", T - 55, T - 60))
    part = slice_of(pending={PAIR: waits}, classes={PAIR: class_of("delete", bulk=False)})
    part.judge("resend", T, suppressed(b"1"))
    batch = fill([part], 0)
    into = settlement(part, batch.chosen[0], batch.repairs[0], BatchResult("kept", T, T))
    assert part.verdicts[PAIR].state == PairState(Side(T - 60, T - 55, 0), None)
    assert into.totals["suppressed"] == 1
    assert into.keeps


def test_a_suppression_that_is_over_refuses_nothing() -> None:
    part = slice_of((b"1", b"2", b"upsert"))
    part.judge("resend", T, suppressed(b"1", until_ms=T))
    assert confirmed(part)[0] == [(PAIR, "upsert")]


def test_whatever_a_late_request_did_the_pair_ends_deleted() -> None:
    """Also if an upsert was confirmed last, or nothing is remembered."""
    for ledger in ({}, {PAIR: encode_remembered(Remembered("upsert", 0, T))}):
        part = slice_of(ledger=ledger, marks={PAIR: (b"", Mark(T - 1, 0))})
        part.judge("resend", T, suppressed(b"2"))
        records, into = confirmed(part)
        assert records == [(PAIR, "delete")]
        assert into.clear == [PAIR, b""]


def test_an_upsert_that_a_lost_worker_may_have_sent_is_followed_by_a_delete() -> None:
    part = slice_of((b"1", b"2", b"upsert"), late_until_ms=T + 500, late_to_ms=T)
    part.judge("resend", T, suppressed(b"1"))
    _, into = confirmed(part)
    assert into.late == [PAIR, T + 500, 0]


@pytest.mark.parametrize(("first_ms", "late"), [(T - 60, [PAIR, T + 5, 0]), (T - 10, [])])
def test_an_upsert_that_a_lost_worker_may_have_delivered_long_ago_is_followed_by_a_delete(
    first_ms: int, late: list[bytes | int]
) -> None:
    waits = state_of("upsert", first_ms, first_ms)
    upserts = class_of("upsert", bulk=False)
    part = slice_of(pending={PAIR: waits}, classes={PAIR: upserts}, late_until_ms=T - 20, late_to_ms=T - 50)
    part.judge("resend", T, suppressed(b"1"))
    _, into = confirmed(part)
    assert (into.late, into.drop[upserts]) == (late, [PAIR])


def test_a_delete_is_said_again_if_a_lost_worker_may_have_sent_the_upsert_that_was_refused() -> None:
    """The delete alone came later than anything that worker can have known; the refused upsert did not."""
    part = slice_of((b"1", b"2", b"delete"), late_until_ms=T + 500, late_to_ms=T - 100)
    part.judge("resend", T, suppressed(b"1"))
    _, into = confirmed(part)
    assert into.late == [PAIR, T + 500, T + 500]


def test_a_malformed_entry_becomes_a_dead_letter_only_if_it_says_a_delete() -> None:
    raw = [
        [b"%d-%d" % (T, i), [b"owner", b"1", b"contact", b"2", b"op", op, b"at", b"soon"]]
        for i, op in enumerate((b"upsert", b"add", b"delete"))
    ]
    part = PartitionSlice(0, coalesce_prefix(raw, 0, 1, 500, fast=True))
    part.judge("resend", T, suppressed(b"2"))
    _, into = confirmed(part)
    assert (into.totals["suppressed"], into.totals["dead_lettered"], into.totals["coalesced"]) == (2, 1, 0)
    assert len(into.letters) == 3


def test_nobody_is_suppressed_by_an_empty_list() -> None:
    part = slice_of((b"1", b"2", b"upsert"))
    part.judge("resend", T, NOBODY)
    assert part.suppressed == set()
    assert len(part.log.fast_path) == 1
