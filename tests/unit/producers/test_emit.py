"""JSON lines into the log: an invalid line is reported by its number, and the others are sent."""

from __future__ import annotations

import io
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from producers import ContactProducer, InvalidChange, ProducerSettings
from producers.emit import LINE_MAX_BYTES, EmitResult, emit_lines, parse_line, read_lines
from tests.support.log_entries import entries_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = b'{"owner": "1", "contact": "2", "op": "upsert"}\n'
STREAM = stream_of("1")


class Emission:
    """One run of emit, and what it reported."""

    def __init__(self) -> None:
        self.client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.producer = ContactProducer(settings=ProducerSettings(namespace="ns"), client=self.client)
        self.bad: list[tuple[int, str]] = []
        self.sent: list[int] = []

    def run(self, lines: list[bytes] | Iterator[bytes | None]) -> EmitResult:
        return emit_lines(lines, self.producer, lambda *bad: self.bad.append(bad), self.sent.append)

    @property
    def length(self) -> int:
        return self.client.xlen(STREAM)


@pytest.fixture
def emission() -> Emission:
    return Emission()


def reader(content: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(content))


def numbered(count: int) -> list[bytes]:
    return [json.dumps({"owner": "1", "contact": str(n), "op": "upsert"}).encode() for n in range(count)]


def test_bad_lines_are_reported_by_number_and_skipped(emission: Emission) -> None:
    far = b'{"owner": "1", "contact": "4", "op": "delete", "at": 99999999999999}'
    result = emission.run(
        [GOOD, b"nonsense\n", b"\n", b"  \r\n", far, GOOD.replace(b'"1"', b"1"), GOOD.replace(b'"2"', b'"3"')]
    )
    assert result == EmitResult(sent=2, bad=3, lines=7)
    assert [number for number, _ in emission.bad] == [2, 5, 6]
    assert [rule.split()[0] for _, rule in emission.bad] == ["a", "at", "owner"]
    assert emission.length == 2


def test_optional_fields_are_taken(emission: Emission) -> None:
    emission.run([b'{"owner":"1","contact":"2","op":"delete","at":1000000000000,"source":"crm","traceparent":null}'])
    assert entries_of(emission.client, "1")[0].fields == {
        b"owner": b"1",
        b"contact": b"2",
        b"op": b"delete",
        b"at": b"1000000000000",
        b"source": b"crm",
    }


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (b"{", "a line must be a JSON object: "),
        (b"[1]", "a line must be a JSON object, not a list"),
        (b"null", "a line must be a JSON object, not null"),
        (b"12", "a line must be a JSON object, not a number"),
        (b'"\xff"', "a line must be UTF-8"),
        (b'{"owner": "1", "owner": "2"}', "a field appears twice"),
        (GOOD.replace(b"}", b', "extra": 1}'), "'extra' is not a field of a change"),
        (GOOD.replace(b'"1"', b'"\\ud800"'), "owner must be"),
        (GOOD.replace(b"}", b', "at": NaN}'), "at must be"),
        (GOOD.replace(b"}", b', "at": ' + b"9" * 5000 + b"}"), "a line must be"),
        (b"[" * 60_000, "a line must be"),
        (b" " * LINE_MAX_BYTES + GOOD, "a line must be at most 65536 bytes"),
    ],
)
def test_a_line_that_says_no_change_is_refused_with_the_rule(line: bytes, rule: str) -> None:
    with pytest.raises(InvalidChange) as caught:
        parse_line(line)
    assert str(caught.value).startswith(rule)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert parse_line(b"\xef\xbb\xbf" + GOOD).owner == "1"


def test_lines_go_out_by_the_thousand(emission: Emission) -> None:
    assert emission.run(numbered(2500)) == EmitResult(sent=2500, bad=0, lines=2500)
    assert emission.sent == [1000, 1000, 500]


def test_it_stops_where_redis_does_not_accept(emission: Emission) -> None:
    emission.client.set(STREAM, "in the way")
    result = emission.run(numbered(2500))
    assert (result.sent, result.lines) == (0, 1000)
    assert result.not_accepted is not None
    assert len(result.not_accepted.refused) == 1000


def test_a_file_without_a_last_newline_is_read_to_its_end() -> None:
    assert [line for line in read_lines(reader(b"a\nb\n\nc")) if line is not None] == [b"a", b"b", b"", b"c"]


def test_a_line_of_any_length_takes_little_memory_and_costs_only_itself() -> None:
    lines = [line for line in read_lines(reader(GOOD + b"x" * 5_000_000 + b"\n" + GOOD)) if line is not None]
    assert [line + b"\n" for line in (lines[0], lines[2])] == [GOOD, GOOD]
    assert len(lines) == 3
    assert LINE_MAX_BYTES < len(lines[1]) <= 3 * LINE_MAX_BYTES


class PausingPipe(io.RawIOBase):
    """A pipe whose writer pauses after each block; notes how long the log is whenever more is asked for."""

    def __init__(self, emission: Emission, *blocks: bytes) -> None:
        super().__init__()
        self.lengths: list[int] = []
        self._emission = emission
        self._blocks = iter(blocks)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.lengths.append(self._emission.length)
        block = next(self._blocks, b"")
        buffer[: len(block)] = block
        return len(block)


def test_a_pipe_that_pauses_holds_nothing_back(emission: Emission) -> None:
    pipe = PausingPipe(emission, GOOD + GOOD[:10], GOOD[10:])
    assert emission.run(read_lines(io.BufferedReader(pipe))).sent == 2
    assert pipe.lengths == [0, 1, 2]


def test_a_pipe_that_another_process_made_non_blocking_is_read_to_its_end(emission: Emission) -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)

    def later() -> None:
        os.write(write, GOOD)
        os.close(write)

    writer = threading.Timer(0.2, later)
    writer.start()
    with os.fdopen(read, "rb") as stream:
        assert emission.run(read_lines(stream)) == EmitResult(sent=1, bad=0, lines=1)
    writer.join()
