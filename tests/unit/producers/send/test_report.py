"""Which changes are in the log, which are not, and which are uncertain."""

from __future__ import annotations

import pytest
import redis

from producers.send.chunk import Chunk
from producers.send.errors import NotAccepted
from producers.send.report import Replies, SendReport
from producers.send.stamp import Stamper

LOST = redis.ConnectionError("Connection closed by server.")
FULL = redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'.")


def chunk_of(*contacts: str) -> Chunk:
    chunk, stamper = Chunk(), Stamper(lambda: 1_795_460_847.757)
    for contact in contacts:
        chunk.admit({"owner": "1", "contact": contact, "op": "upsert"}, stamper)
    return chunk


def contacts(changes: tuple[object, ...]) -> list[str]:
    return [change.contact for change in changes]  # type: ignore[attr-defined]


def test_a_reply_makes_it_certain_and_its_lack_uncertain() -> None:
    report = SendReport()
    report.record(chunk_of("a", "b", "c", "d"), Replies([b"1-0", FULL], LOST))
    report.record(chunk_of("e"), Replies([], LOST, written=False))
    with pytest.raises(NotAccepted) as caught:
        report.conclude(None)
    error = caught.value
    assert error.accepted == 1
    assert contacts(error.refused) == ["b", "e"]
    assert contacts(error.uncertain) == ["c", "d"]
    assert contacts(error.changes) == ["b", "c", "d", "e"]
    assert error.cause is FULL
    assert all(change.at == 1_795_460_847_757 for change in error.changes)


def test_nothing_is_uncertain_before_a_byte_was_written() -> None:
    report = SendReport()
    report.record(chunk_of("a", "b"), Replies([], LOST, written=False))
    with pytest.raises(NotAccepted) as caught:
        report.conclude(None)
    assert contacts(caught.value.refused) == ["a", "b"]


def test_the_line_counts_and_names_no_id() -> None:
    report = SendReport()
    report.record(chunk_of("somebody", "a"), Replies([FULL, b"1-0"]))
    with pytest.raises(NotAccepted) as caught:
        report.conclude(ValueError("the rest"))
    assert str(caught.value) == (
        "1 of 2 changes not accepted (1 refused, 0 uncertain): OOM command not allowed when used memory > 'maxmemory'"
        "; and the changes ended early: the rest"
    )


def test_one_of_several_answers_stands_for_itself() -> None:
    answer = Replies([b"1-0", FULL], LOST)
    assert answer.of(0) == Replies([b"1-0"])
    assert answer.of(1) == Replies([FULL])
    assert answer.of(2) == Replies([], LOST)
