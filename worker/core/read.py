"""What a flush asks of a partition's stored state, and what it gets, as Redis keeps it (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from worker.core.codec import Mark

RawEntries = Sequence[list[Any]]
"""Entries of a log as XRANGE returns them: of each a list of its id, and of a list of its fields and values in turn."""


class ReadRequest(NamedTuple):
    """How much to read of a leased partition.

    Attributes:
        entries: most entries of its log.
        bulk: most entries of the bulk lane's log; 0 reads none.
        pairs: pairs that wait to read at least, by class; 0 reads none of a class.
        marks: most late marks that are due; 0 reads none.
        parked: whether a parked pair that is due is read.
    """

    entries: int
    bulk: int
    pairs: Sequence[int]
    marks: int
    parked: bool = False


class ReadResult(NamedTuple):
    """What was read of a partition.

    Attributes:
        entries: of its log, from the settled position on.
        has_old_ledger: whether it has an older ledger beside the current one.
        pending: states of pairs that wait, as stored.
        classes: the class in which each of these pairs waits.
        bulk: entries of the bulk lane's log, from the settled position on.
        marks: late marks that are due, as stored and as decoded.
        parked: a parked pair that is due, as stored: that which waited longest, since each is tried alone.
        now_ms: the time by the clock of the server that has it, which all times of its state are of (Unix ms).
    """

    entries: RawEntries
    has_old_ledger: bool
    pending: Mapping[bytes, bytes]
    classes: Mapping[bytes, int]
    bulk: RawEntries
    marks: Mapping[bytes, tuple[bytes, Mark]]
    parked: Mapping[bytes, bytes]
    now_ms: int


class Recalled(NamedTuple):
    """What is stored about the pairs of one partition that were read, by pair and as stored.

    Attributes:
        ledger: what was confirmed of them.
        pending: states that wait, of pairs whose state was not read before.
        classes: the class in which each of these pairs waits.
        marks: late marks, of pairs whose mark was not read before.
        dead_pairs: what is kept beside their dead letters.
        parked: those that are parked, of pairs that were not read before.
    """

    ledger: Mapping[bytes, bytes]
    pending: Mapping[bytes, bytes]
    classes: Mapping[bytes, int]
    marks: Mapping[bytes, bytes]
    dead_pairs: Mapping[bytes, bytes]
    parked: Mapping[bytes, bytes]
