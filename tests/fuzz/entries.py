"""Entries of the log, one at a time: by all rules, on the fast path, and by what is stored of them."""

from __future__ import annotations

from typing import Final

from producers.contract.change import AT_AHEAD_MS, AT_MIN_MS, OPS, id_fault, partition_of
from tests.fuzz.target import T, Target, entry_ms_of, in_twos
from worker.core.codec import decode_remembered, decode_state, encode_remembered, encode_state
from worker.core.entry import Malformed, entry_time_ms, pair_of, read_entry, split_pair
from worker.core.pair import confirm, state_of, verdict
from worker.core.reasons import OF_RECORDS, REASONS
from worker.core.slice import coalesce_prefix

_ID_MAX: Final = (256, 50, 1)


def run(data: bytes) -> str:
    """A line of options, the entry's id, then its fields and values, a line each."""
    options, entry, *lines = [*data.split(b"\n"), b"", b""][: max(2, data.count(b"\n") + 1)]
    lane = "bulk" if b"b" in options else "live"
    id_max = _ID_MAX[options.count(b"s") % 3]
    partitions = 2 if b"p" in options else 1
    entry_id, flat = b"%d-0" % entry_ms_of(entry), in_twos(lines)
    read = read_entry(entry_id, flat, 0, partitions, lane, id_max)  # type: ignore[arg-type] # one of both
    for fast in (False, True):
        log = coalesce_prefix([[entry_id, flat]], 0, partitions, 1, fast=fast, lane=lane, id_max=id_max)  # type: ignore[arg-type] # the same
        if isinstance(read, Malformed):
            assert (log.malformed, log.pairs, log.entries) == ([read], 0, 1), "the paths differ"
            continue
        assert (log.malformed, log.pairs, log.entries) == ([], 1, 1), "the paths differ"
        state = log.states.get(read.pair) or log.fast_path.take_out(read.pair)
        assert state == state_of(read.op, read.at, read.entry_ms, read.source), "the paths differ"
    if isinstance(read, Malformed):
        assert all(flat[i : i + 2][0] in flat[::2] for i in range(0, len(flat), 2))
        assert {*read.fields.values()} <= {*flat}
        return read.reason
    owner, contact = split_pair(read.pair)
    assert id_fault(owner) is id_fault(contact) is None
    assert max(len(owner.decode()), len(contact.decode())) <= id_max
    assert pair_of(owner, contact) == read.pair
    assert partition_of(owner, partitions) == 0
    assert read.op in OPS
    assert read.entry_ms == entry_time_ms(entry_id)
    assert not read.at or AT_MIN_MS <= read.at <= read.entry_ms + AT_AHEAD_MS
    state = state_of(read.op, read.at, read.entry_ms, read.source)
    assert decode_state(encode_state(state)) == state
    known = confirm(None, verdict(state, None, "resend"))
    assert decode_remembered(encode_remembered(known)) == known
    return "change"


_ENTRY: Final = b"\n%d-0\n" % T

TARGET: Final = Target(
    "entries",
    "an entry of the log",
    run,
    frozenset({"change", *REASONS} - OF_RECORDS),
    [
        _ENTRY + b"owner\n1\ncontact\n2\nop\nupsert\nat\n%d" % T,
        _ENTRY + b"op\ndelete\ncontact\n\xc3\xa9\nowner\n1\nsource\ncrm\nat\n%d" % T,
        b"b" + _ENTRY + b"owner\n1\ncontact\n2\nop\nupsert",
        b"s" + _ENTRY + b"owner\n1\ncontact\n" + b"2" * 51 + b"\nop\nupsert",
        _ENTRY + b"owner\n1\ncontact\n2\nop\nupsert\ncontact\n2",
        _ENTRY + b"owner\n1\ncontact\n2\nop\nupsert\nop\nupsert",
        _ENTRY + b"owner\n1\ncontact\n2\nop\nupsert\nat\n%d\nat\n%d" % (T, T),
        _ENTRY + b"data\n{",
        _ENTRY + b"unmapped\n{}",
        b"p" + _ENTRY + b"owner\n1\ncontact\n2\nop\nupsert\nat\n%d\nowner\n4" % T,
    ],
    [
        b"owner\n",
        b"contact\n",
        b"op\n",
        b"at\n",
        b"source\n",
        b"unmapped\n",
        b"data\n",
        b"traceparent\n",
        b"upsert",
        b"delete",
        b"%d" % T,
        b"\xc2\x85",
        b"\xff",
        b"\x1f",
        b"0",
    ],
)
