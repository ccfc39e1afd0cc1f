from __future__ import annotations

import math
from typing import TYPE_CHECKING

import orjson
import pytest

from producers.contract.change import partition_of
from tests.soak.evidence import HELD_BACK_SECONDS, evidence_of
from tests.soak.lineage import Deeds, Reign
from tests.soak.log_file import Entry, Settle
from tests.soak.recorder import Request, Seen
from tests.soak.soak import Options, Ran
from tests.soak.traffic import Acknowledged
from tests.soak.workers import Exits

if TYPE_CHECKING:
    from tests.proof.history import Record
    from tests.soak.log_file import Done

T = 1_795_460_000_000
PARTITION = partition_of("1", 4)
RECORD: Record = ("1", "2", "upsert")
SETTINGS = {
    "partitions": 4,
    "readd": "resend",
    "batch_size": 200,
    "ledger_seconds": 120.0,
    "lease_seconds": 3.5,
    "request_timeout_seconds": 2.0,
    "late_seconds": 5.0,
    "rate": 20.0,
}


def entry(ms: int, contact: str = "2") -> Entry:
    return Entry(PARTITION, f"{T + ms}-0", {b"owner": b"1", b"contact": contact.encode(), b"op": b"upsert"})


def settle(ms: int, *confirmed: Record, position: int = 0, buried: tuple[tuple[bytes, bytes], ...] = ()) -> Settle:
    return Settle(PARTITION, T + ms, (f"{T + position}-0", ""), confirmed, buried)


def request(number: int, ms: int, *records: Record, status: int = 200, code: str = "", fault: str = "") -> Request:
    applied_at = (T + ms + 100) / 1000 if status == 200 else None
    return Request(number, (T + ms) / 1000, records, fault or None, status, code, applied_at)


def ran(done: list[Done], *requests: Request) -> Ran:
    seen = Seen(deeds=[Deeds(done)], requests={each.number: each for each in requests})
    return Ran(Options(1.0), dict(SETTINGS), 0.0, 0.0, Exits(), seen, Acknowledged())


def test_what_was_answered_and_settled_is_confirmed_with_what_had_been_read() -> None:
    evidence = evidence_of(ran([entry(0), entry(50), settle(160, RECORD), entry(900)], request(1, 60, RECORD)))
    (sent,) = evidence.history.sent
    assert evidence.false == []
    assert (sent.outcome, sent.settled, sent.read_by_ms) == ("confirmed", frozenset({PARTITION}), T)


def test_what_was_answered_and_not_settled_may_have_moved_nothing() -> None:
    evidence = evidence_of(ran([entry(0)], request(1, 60, RECORD)))
    assert [(sent.outcome, sent.settled) for sent in evidence.history.sent] == [(None, frozenset())]


@pytest.mark.parametrize(
    "answered",
    [
        request(1, 60, RECORD, status=503),
        request(1, 60, RECORD, fault="garbage"),
        request(1, 60, RECORD, code="50001"),
        request(1, 60, ("1", "9", "upsert")),
        request(1, 60, ("1", "2", "delete")),
        request(1, 5_000, RECORD),
    ],
    ids=["503", "garbage", "error in a 200", "another pair", "another op", "later than the settle"],
)
def test_a_settle_of_what_was_never_answered_so_is_told(answered: Request) -> None:
    evidence = evidence_of(ran([entry(0), settle(160, RECORD), entry(900)], answered))
    assert [each.kind for each in evidence.false] == ["order"]


def test_of_two_requests_each_gets_the_settle_that_says_just_what_it_said() -> None:
    both = [RECORD, ("1", "9", "upsert")]
    done: list[Done] = [entry(0), entry(1, "9"), settle(200, RECORD), settle(210, *both, position=1), entry(900)]
    evidence = evidence_of(ran(done, request(1, 20, RECORD), request(2, 30, *both)))
    assert evidence.false == []
    assert [sent.read_by_ms for sent in evidence.history.sent] == [T, T + 1]


def test_a_settle_is_of_a_request_that_can_have_read_as_far_as_it_says() -> None:
    """A failover lost the settle of the first. The second said a repair beside the record: none is written of that."""
    done: list[Done] = [entry(0), entry(700), settle(900, RECORD, position=700), entry(950)]
    evidence = evidence_of(ran(done, request(1, 20, RECORD), request(2, 800, RECORD, ("1", "9", "upsert"))))
    assert [sent.settled for sent in evidence.history.sent] == [frozenset(), frozenset({PARTITION})]


def test_equal_requests_around_a_failover_may_each_have_either_settle() -> None:
    done: list[Done] = [entry(0), settle(160, RECORD), entry(200), settle(360, RECORD, position=200)._replace(seq=1)]
    done.append(entry(900))
    both = [request(1, 60, RECORD), request(2, 260, RECORD)]
    first, second = (f"{T}-0", ""), (f"{T + 200}-0", "")
    quiet, failed_over = ran(done, *both), ran(done, *both)
    failed_over.seen.deeds.append(Deeds(done))
    failed_over.seen.reigns = {PARTITION: [Reign(T, 0), Reign(T + 300, 1)]}
    sent = evidence_of(failed_over).history.sent
    assert [each.settled for each in sent] == [None, None]
    assert [each.perhaps_to for each in sent] == [{PARTITION: [first, second]}, {PARTITION: [second]}]
    assert [each.perhaps_to for each in evidence_of(quiet).history.sent] == [None, None]


def test_what_was_settled_long_before_a_request_had_been_read_for_it_and_what_was_settled_lately_perhaps() -> None:
    long_ms = 3_500 + int(HELD_BACK_SECONDS * 1000)  # a lease, and what a fault holds back
    done: list[Done] = [entry(0), settle(160), entry(900), settle(950, position=900)._replace(seq=1)]
    done.append(entry(2_000))
    evidence = evidence_of(ran(done, request(1, 120, RECORD), request(2, 1_000 + long_ms, RECORD)))
    assert [sent.read_from for sent in evidence.history.sent] == [None, {PARTITION: (f"{T}-0", "")}]


def test_a_record_that_was_refused_alone_and_buried_is_refused() -> None:
    letter: dict[str, str | int | None] = {
        "owner": "1",
        "contact": "2",
        "op": "upsert",
        "at": None,
        "source": None,
        "reason": "refused",
    }
    letter |= {"code": "40002", "field": "103", "message": "no", "since": T, "entry": None, "entry_ms": T}
    buried = settle(160, buried=((b"1-1", orjson.dumps(letter)),))
    evidence = evidence_of(ran([entry(0), buried, entry(900)], request(1, 60, RECORD, status=400, code="40002")))
    assert [sent.outcome for sent in evidence.history.sent] == ["refused"]
    assert [each.id for each in evidence.history.letters] == ["1-1"]


def test_the_limit_is_not_asked_of_the_previous_release() -> None:
    told = ran([])
    told.beside = [(T / 1000, T / 1000 + 5), (T / 1000 + 60, math.inf)]
    spans = [(each.from_ms - T, each.until_ms - T) for each in evidence_of(told).history.paced]
    assert spans[:2] == [(-T, 0), (5_000 + HELD_BACK_SECONDS * 1000, 60_000)]
    assert [since >= until for since, until in spans] == [False, False, True]
