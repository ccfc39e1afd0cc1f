"""The rules for the changes of one pair: joining, staleness, verdict, ledger (contract, section 3).

Pure. A pair's state is a join-semilattice (maximum, minimum), so order, duplicates and retries of the log cannot
matter. The ledger keeps an older change from undoing a newer one. docs/explanation/design.md
explains why the state has this form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from producers.contract.change import Op

Readd = Literal["resend", "absorb"]


class Side(NamedTuple):
    """The joined changes of one op of one pair.

    Attributes:
        first_ms: time of the oldest entry among them (Unix ms).
        at: greatest `at` among them (Unix ms), 0 if none has one.
        entry_ms: greatest time of an entry without `at` (Unix ms), 0 if all have one.
        source: source of the newest of them, empty if unknown.
    """

    first_ms: int
    at: int
    entry_ms: int
    source: bytes = b""


class Refused(NamedTuple):
    """How often a record was refused alone with an unknown code.

    Attributes:
        since_ms: when it was refused first (Unix ms).
        tries: how often it was refused.
        code: the endpoint's error code, as it may be logged.
        field: the endpoint's error field, as it may be logged.
    """

    since_ms: int
    tries: int
    code: str
    field: str


class PairState(NamedTuple):
    """The joined changes of one pair.

    Attributes:
        delete: its deletes, None if there are none.
        upsert: its upserts, None if there are none.
        suspect: after a batch with it was rejected, most records of the next batch with it; -n after it was refused
            alone n times while the endpoint refused everything; else 0.
        refused: how its record was refused with an unknown code, None if it was not.
    """

    delete: Side | None
    upsert: Side | None
    suspect: int = 0
    refused: Refused | None = None

    @property
    def live(self) -> int:
        """Number of changes that this state stands for in the totals: one for each side."""
        return (self.delete is not None) + (self.upsert is not None)

    @property
    def newest_ms(self) -> int:
        """Greatest time of a change in it: its `at`, or that of its entry if it has none (Unix ms)."""
        return max(max(side.at, side.entry_ms) for side in (self.delete, self.upsert) if side is not None)

    @property
    def first_ms(self) -> int:
        """Time of the oldest entry in it (Unix ms)."""
        return min(side.first_ms for side in (self.delete, self.upsert) if side is not None)


class Remembered(NamedTuple):
    """What the ledger remembers of a pair.

    Attributes:
        op: what the endpoint confirmed last.
        delete_at: greatest `at` of a delete that was confirmed, or superseded by a confirmed change; 0 if none.
        upsert_at: the same for its upserts.
    """

    op: Op
    delete_at: int
    upsert_at: int


class Verdict(NamedTuple):
    """What follows from a pair's state and the ledger.

    Attributes:
        op: the record to send now, None if there is nothing to send.
        state: the state without stale changes, None if all are stale.
        rest: what remains for a later request once the record is confirmed or dead.
        superseded: number of changes that end with the record, because it wins over them.
        stale: number of changes that the ledger outdates.
        suppressed: number of upserts that are refused, because somebody in the pair was erased.
    """

    op: Op | None
    state: PairState | None
    rest: PairState | None
    superseded: int
    stale: int
    suppressed: int = 0


def state_of(op: Op, at: int, entry_ms: int, source: bytes = b"") -> PairState:
    """The state of a single change; `at` is 0 if it has none."""
    side = Side(entry_ms, at, 0, source) if at else Side(entry_ms, 0, entry_ms, source)
    return PairState(side, None) if op == "delete" else PairState(None, side)


def _join_side(a: Side | None, b: Side | None) -> Side | None:
    if a is None or b is None:
        return b if a is None else a
    # The source goes with the newest of the changes; a tie is broken by the source itself, so that order cannot matter.
    newest = max((max(a.at, a.entry_ms), a.source), (max(b.at, b.entry_ms), b.source))
    return Side(min(a.first_ms, b.first_ms), max(a.at, b.at), max(a.entry_ms, b.entry_ms), newest[1])


def join(a: PairState, b: PairState) -> PairState:
    """Joins two states into one. Commutative, associative, idempotent."""
    delete, upsert = _join_side(a.delete, b.delete), _join_side(a.upsert, b.upsert)
    refused = max(filter(None, (a.refused, b.refused)), default=None)
    return PairState(delete, upsert, max(a.suspect, b.suspect), refused)


def _without_stale(side: Side | None, *, stale: bool) -> Side | None:
    """The side without its changes that have an `at`, if these are stale; a change without `at` never is."""
    if side is None or not stale:
        return side
    return Side(side.first_ms, 0, side.entry_ms, side.source) if side.entry_ms else None


def _fresh(state: PairState, ledger: Remembered) -> PairState:
    delete, upsert = state.delete, state.upsert
    if delete is not None and delete.at:
        stale = delete.at <= ledger.delete_at or delete.at < ledger.upsert_at  # a delete wins if both are equal
        delete = _without_stale(delete, stale=stale)
    if upsert is not None and upsert.at:
        stale = upsert.at <= ledger.delete_at or upsert.at <= ledger.upsert_at
        upsert = _without_stale(upsert, stale=stale)
    return PairState(delete, upsert, state.suspect, state.refused)


def verdict(state: PairState, ledger: Remembered | None, readd: Readd) -> Verdict:
    """Decides the one record to send now, if any, and what remains.

    Among changes that wait together a delete wins over every upsert that is not known to be later. It is known only if
    both have an `at` (contract 3.1). An upsert known to be later is sent after the delete was confirmed, or dropped
    with `absorb` (contract 3.2).
    """
    fresh = state if ledger is None else _fresh(state, ledger)
    stale = state.live - fresh.live
    delete, upsert = fresh.delete, fresh.upsert
    if delete is None:
        return Verdict("upsert", fresh, None, 0, stale) if upsert is not None else Verdict(None, None, None, 0, stale)
    if upsert is None:
        return Verdict("delete", fresh, None, 0, stale)
    known_later = not delete.entry_ms and upsert.at > delete.at
    if known_later and readd == "resend":
        # An upsert without `at` loses to the delete; only the one with `at` remains.
        rest = PairState(None, Side(upsert.first_ms, upsert.at, 0, upsert.source), fresh.suspect)
        return Verdict("delete", fresh, rest, 0, stale)
    return Verdict("delete", fresh, None, 1, stale)


def suppressed_verdict(state: PairState) -> Verdict:
    """Decides the same for a pair with somebody who was erased: its upserts are refused, and its deletes go through.

    What was confirmed before does not matter: the delete goes also if it is older than an upsert that was confirmed, or
    has been confirmed already.
    """
    refused = int(state.upsert is not None)
    if state.delete is None:
        return Verdict(None, None, None, 0, 0, refused)
    return Verdict("delete", state._replace(upsert=None), None, 0, 0, refused)


def confirm(ledger: Remembered | None, of: Verdict, *, unstamped_upserts: bool = False) -> Remembered:
    """What the ledger remembers once the record of this verdict was confirmed.

    A delete without `at` is remembered with the time of its entry, so that an older upsert cannot return. An upsert
    without `at` is remembered without a time, unless `unstamped_upserts` asks for the time of its entry: pairs with
    dead letters need it, because a redrive uses the time of its entry.
    """
    assert of.op is not None  # noqa: S101 - nothing without a record is ever confirmed; this tells mypy so
    assert of.state is not None  # noqa: S101 - the same
    delete_at, upsert_at = (ledger.delete_at, ledger.upsert_at) if ledger else (0, 0)
    delete, upsert = of.state.delete, of.state.upsert
    if of.op == "delete" and delete is not None:
        delete_at = max(delete_at, delete.at, delete.entry_ms)
    if upsert is not None and (of.op == "upsert" or of.superseded):
        # A superseded upsert was never confirmed: it must not outdate an upsert that the delete does not outdate.
        counts = unstamped_upserts and of.op == "upsert"
        upsert_at = max(upsert_at, upsert.at, upsert.entry_ms if counts else 0)
    return Remembered(of.op, delete_at, upsert_at)


def join_remembered(a: Remembered | None, b: Remembered | None) -> Remembered | None:
    """Joins two memories of one pair; `a` is the newer one and gives the op."""
    if a is None or b is None:
        return b if a is None else a
    return Remembered(a.op, max(a.delete_at, b.delete_at), max(a.upsert_at, b.upsert_at))
