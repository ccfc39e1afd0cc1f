"""Sources of truth, row by row: what is one, what is none and why, and what is cut off."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import threading
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.emit import LINE_MAX_BYTES
from worker.reconcile.csv_rows import csv_rows
from worker.reconcile.files import FileSource
from worker.reconcile.json_rows import json_rows
from worker.reconcile.lines import Lines
from worker.reconcile.rows import Reject, Row, SourceBroken, row_of

if TYPE_CHECKING:
    from pathlib import Path


def from_csv(text: bytes) -> list[Row | Reject]:
    return list(csv_rows(Lines(io.BytesIO(text))))


def from_json(text: bytes) -> list[Row | Reject]:
    return list(json_rows(Lines(io.BytesIO(text))))


def faults(rows: list[Row | Reject]) -> list[tuple[int, str]]:
    return [(row.line, row.field) for row in rows if isinstance(row, Reject)]


def test_a_csv_gives_pairs_by_its_header_whatever_its_order_and_other_columns() -> None:
    assert from_csv(b"\xef\xbb\xbfnote,Contact, OWNER ,op\r\nx,2,1,upsert\r\n\r\ny,3,1,delete\r\n") == [
        Row(2, b"1\x1f2", "upsert"),
        Row(4, b"1\x1f3", "delete"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_says_what_stands_between_columns(delimiter: str) -> None:
    assert from_csv(f"owner{delimiter}contact\n1{delimiter}2\n".encode()) == [Row(2, b"1\x1f2", "upsert")]


def test_every_row_that_is_none_is_told_by_line_and_field_and_the_others_count() -> None:
    text = b"owner,contact,op\n1,,upsert\n,2,upsert\n1,%b,upsert\n1,\xff,upsert\n"
    text += b"1,2,remove\n1,2\n1,a\x00b,upsert\n1,9,upsert\n"
    rows = from_csv(text % (b"x" * 257))
    assert faults(rows) == [
        (2, "contact"),
        (3, "owner"),
        (4, "contact"),
        (5, "contact"),
        (6, "op"),
        (7, "row"),
        (8, "contact"),
    ]
    assert rows[-1] == Row(9, b"1\x1f9", "upsert")


def test_a_line_without_end_takes_no_memory_and_is_one_reject() -> None:
    rows = from_csv(b"owner,contact\n1," + b"x" * (3 * LINE_MAX_BYTES) + b"\n1,2\n")
    assert faults(rows) == [(2, "row")]
    assert rows[-1] == Row(3, b"1\x1f2", "upsert")


@pytest.mark.parametrize("bomb", [b"0", b"x\n"], ids=["one line", "many lines"])
def test_a_source_that_unpacks_to_a_thousand_times_its_size_takes_little_memory(bomb: bytes) -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(b"owner,contact\n")
        for _ in range(32 if bomb == b"0" else 1):
            file.write(bomb * (1 << 20 if bomb == b"0" else 1 << 15))
    packed.seek(0)
    tracemalloc.start()
    try:
        rejects = sum(isinstance(each, Reject) for each in csv_rows(Lines(packed), trim=False))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rejects == (1 if bomb == b"0" else 1 << 15)
    assert peak < 4_000_000


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "empty"),
        (b"1,2\n", "no owner and no contact"),
        (b"owner,name\n", "no contact"),
        (b"owner,contact,owner\n", "owner twice"),
    ],
)
def test_a_header_that_does_not_fit_is_one_line_without_what_it_says(header: bytes, says: str) -> None:
    with pytest.raises(SourceBroken, match=says) as caught:
        from_csv(header)
    assert "1,2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"owner,contact",
        b"owner,contact\n1,2\n1,23",
        b'owner,contact\n1,2\n1,"3\n',
        gzip.compress(b"owner,contact\n1,2\n" * 999, mtime=0)[:-9],
    ],
    ids=["header", "no line end", "open quote", "gzip"],
)
def test_a_csv_that_ends_half_way_is_not_taken_for_whole(text: bytes) -> None:
    with pytest.raises(SourceBroken, match="cut off"):
        from_csv(text)


def test_a_pipe_that_another_process_made_non_blocking_is_read_to_its_end() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)

    def later() -> None:
        os.write(write, b"owner,contact\n1,2\n")
        os.close(write)

    writer = threading.Timer(0.2, later)
    writer.start()
    with os.fdopen(read, "rb") as stream:
        assert list(csv_rows(Lines(stream))) == [Row(2, b"1\x1f2", "upsert")]
    writer.join()


def test_damaged_gzip_and_other_encodings_are_one_line() -> None:
    packed = bytearray(gzip.compress(b"owner,contact\n" + bytes(range(33, 126)) * 99))
    packed[30] ^= 0xFF
    with pytest.raises(SourceBroken, match=r"damaged|cut off"):
        from_csv(bytes(packed))
    with pytest.raises(SourceBroken, match="UTF-16"):
        from_csv("owner,contact\n".encode("utf-16"))


def test_json_lines_give_pairs_and_rejects() -> None:
    lines = ['{"owner": "1", "contact": "2", "name": "x"}', "", '{"owner": "1", "contact": "3", "op": "delete"}']
    lines += [
        '{"owner": 1, "contact": "2"}',
        '{"contact": "2"}',
        "nothing",
        '["1", "2"]',
        '{"owner": "1", "owner": "2"}',
    ]
    lines += ['{"owner": "1", "contact": "\\ud800"}', '{"owner": "1", "contact": "2", "op": null}', "[" * 50_000]
    rows = from_json("\n".join([*lines, ""]).encode())
    assert rows[:2] == [Row(1, b"1\x1f2", "upsert"), Row(3, b"1\x1f3", "delete")]
    assert faults(rows) == [
        (4, "owner"), (5, "owner"), (6, "row"), (7, "row"), (8, "row"), (9, "contact"), (10, "op"), (11, "row"),
    ]  # fmt: skip


def test_json_that_ends_half_way_or_is_an_array_is_refused_and_a_whole_last_line_needs_no_end() -> None:
    assert from_json(b'{"owner": "1", "contact": "2"}') == [Row(1, b"1\x1f2", "upsert")]
    with pytest.raises(SourceBroken, match="cut off"):
        from_json(b'{"owner": "1", "contact": "2"}\n{"owner": "1", "con')
    with pytest.raises(SourceBroken, match="array"):
        from_json(b'[{"owner": "1", "contact": "2"}]\n')


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (("1",), "row"),
        ("12", "row"),
        ((1, "2"), "owner"),
        (("1", None), "contact"),
        ({"owner": "1"}, "contact"),
        (("1", "2", "x"), "op"),
    ],
)
def test_what_a_program_gives_keeps_the_same_rules(item: tuple[object, ...], field: str) -> None:
    rejected = row_of(7, item)
    assert isinstance(rejected, Reject)
    assert (rejected.line, rejected.field) == (7, field)
    assert row_of(7, ("1", "2", "delete")) == row_of(7, {"owner": "1", "contact": "2", "op": "delete"})


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.ndjson.gz", "export", "export.gz"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_is_known_by_its_name_and_else_by_its_first_character(tmp_path: Path, name: str, kind: str) -> None:
    if ("csv" in name and kind != "csv") or ("json" in name and kind != "jsonl"):
        return
    text = b"owner,contact\n1,2\n" if kind == "csv" else b' {"owner": "1", "contact": "2"}\n'
    file = tmp_path / name
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with FileSource(str(file)) as source:
        assert [row.pair for row in source if isinstance(row, Row)] == [b"1\x1f2"]
        assert source.done == source.total == file.stat().st_size


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceBroken, match="No such file"), FileSource(str(tmp_path / "none.csv")):
        pass
    with pytest.raises(SourceBroken, match="directory"), FileSource(str(tmp_path)):
        pass


ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(
    lambda id_: id_ == id_.strip()
)


@given(st.lists(st.tuples(ids, ids)))
def test_what_other_programs_write_is_read_back(pairs: list[tuple[str, str]]) -> None:
    written = io.StringIO()
    csv.writer(written).writerows([("owner", "contact"), *pairs])
    lines = "".join(json.dumps({"owner": owner, "contact": contact}) + "\n" for owner, contact in pairs)
    expected = [f"{owner}\x1f{contact}".encode() for owner, contact in pairs]
    for rows in (from_csv(written.getvalue().encode()), from_json(lines.encode())):
        assert [row.pair for row in rows if isinstance(row, Row)] == expected
        assert len(rows) == len(expected)


@given(st.binary())
def test_no_bytes_whatever_make_it_fail_otherwise(text: bytes) -> None:
    for read in (from_csv, from_json):
        with suppress(SourceBroken):
            read(b"owner,contact\n" + text)


NOTE = "x" * 70_000
"""Longer than one line may be."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        f'1,2,"{NOTE}\n3,4,delete\n"\n',
        f'1,2,"a\n{NOTE}\n3,4,delete\n"\n',
        '1,2,"a"b,"c\n3,4,delete\n"\n',
        '1,2,"a' + "\n3,4,delete" * 2_000_000,
    ],
    ids=["its quote opens in a line too long", "a line too long within it", "after an error", "longer than a row"],
)
def test_what_a_quoted_field_holds_never_becomes_rows(text: str) -> None:
    rows: list[Row | Reject] = []
    with pytest.raises(SourceBroken):
        rows.extend(csv_rows(Lines(io.BytesIO(f"owner,contact,op,note\n{text}".encode()))))
    assert not [row for row in rows if isinstance(row, Row) and row.op == "delete"]


def test_a_long_note_in_many_lines_is_one_field_of_its_row() -> None:
    note = "3,4,delete\n" * 20_000
    assert from_csv(f'owner,contact,note\n1,2,"{note}"\n5,6,\n'.encode()) == [
        Row(2, b"1\x1f2", "upsert"),
        Row(20_003, b"5\x1f6", "upsert"),
    ]


def test_a_row_with_an_error_and_matching_quotes_is_one_reject() -> None:
    assert faults(from_csv(b'owner,contact,note\n1,2,"a"b\n3,4,c\n')) == [(2, "row")]


def test_blanks_around_an_id_are_a_reject_or_removed() -> None:
    text = b"owner,contact,op\n1, 2,upsert\n3,4 ,delete\n"
    assert faults(from_csv(text)) == [(2, "contact"), (3, "contact")]
    assert list(csv_rows(Lines(io.BytesIO(text)), trim=True)) == [
        Row(2, b"1\x1f2", "upsert"),
        Row(3, b"3\x1f4", "delete"),
    ]
    line = b'{"owner": "1 ", "contact": "2", "op": " delete"}\n'
    assert faults(from_json(line)) == [(1, "owner")]
    assert list(json_rows(Lines(io.BytesIO(line)), trim=True)) == [Row(1, b"1\x1f2", "delete")]
