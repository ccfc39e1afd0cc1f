"""Entries of the inbox: changes as producers write them, and messages of change data capture with each mapping."""

from __future__ import annotations

from typing import Final

import orjson

from tests.fuzz.target import T, Target, entry_ms_of, in_twos
from tests.support.recorded_messages import TOOLS, mapping, recorded
from worker.core.entry import UNMAPPED, Change, Malformed, read_entry
from worker.core.inbox_map import InboxMap, read_map
from worker.store.inbox import changes_of

_CODED: Final = read_map(
    """
    [message]
    in = "fields"
    [row]
    owner = "row.o"
    contact = "c"
    upsert = ""
    delete = "old"
    [op]
    from = "op"
    upsert = ["1", "true"]
    delete = ["0"]
    ignore = ["x"]
    [at]
    from = "at"
    unit = "s"
    [key_change]
    by_source = true
    """
)
_MAPS: Final[tuple[InboxMap | None, ...]] = (None, *map(mapping, TOOLS), _CODED)


def run(data: bytes) -> str:
    """A line that chooses the mapping, one with the entry's id, then fields and values, a line each."""
    head, entry, *lines = [*data.split(b"\n"), b"", b""][: max(2, data.count(b"\n") + 1)]
    by = _MAPS[(head or b"\0")[0] % len(_MAPS)]
    entry_id, flat = b"%d-0" % entry_ms_of(entry), in_twos(lines)
    moved = changes_of(entry_id, flat, by)
    assert len(moved) <= 2
    outcome = "says nothing"
    for fields in moved:
        assert len(fields) % 2 == 0
        assert all(type(each) is bytes for each in fields)
        read = read_entry(entry_id, fields, 0, 1)
        if fields[0] == UNMAPPED and by is not None:
            assert isinstance(read, Malformed)
            assert read.reason == "unmapped"
            said = orjson.loads(fields[1])
            assert said["field"]
            assert said["rule"]
            outcome = "unmapped"
        elif isinstance(read, Change):
            # It may move twice, so it must say the same in whatever millisecond it is appended.
            assert read.at, "a change moves without a time"
            outcome = "two changes" if len(moved) == 2 else "change"
        else:
            assert len(moved) == 1, "half of a message is malformed"
            outcome = "malformed"
    return outcome


TARGET: Final = Target(
    "inboxes",
    "an entry of the inbox, with each mapping",
    run,
    frozenset({"change", "two changes", "says nothing", "unmapped", "malformed"}),
    [
        b"\0\n%d-0\nowner\n1\ncontact\n2\nop\nupsert" % T,
        b'\0\n%d-0\ndata\n{"owner":"1","contact":"2","op":"delete","at":%d}' % (T, T),
        b"\x06\n%d-0\nop\n1\nat\n%d\nrow.o\nann\nc\nbob" % (T, T // 1000),
        *(b"%c\n%d-0\n" % (i + 1, T) + b"\n".join(flat) for i, tool in enumerate(TOOLS) for flat in recorded(tool)[:6]),
    ],
    [
        b"owner\n",
        b"contact\n",
        b"data\n",
        b'"op":',
        b'"u"',
        b'"d"',
        b'"c"',
        b'"r"',
        b'"before":',
        b'"after":',
        b"null",
        b'"ts_ms":',
        b'"source":',
        b'"payload":',
        b"value\n",
        b"\\ud800",
        b"%d" % T,
        b"true",
        b"1.5",
        b"__deleted",
    ],
    4096,
)
