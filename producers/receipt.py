"""Receipts: what became of one change, asked of Redis where and when somebody wants to know it.

A receipt costs nothing until it is asked about: it is the entry's id, and what the change said. The answer is judged
from what the workers keep anyway: how far the log is settled, what waits, and what was confirmed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from producers.contract.change import partition_of
from producers.contract.keys import PAIR_SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from producers.contract.change import ContactChange, Op
    from producers.contract.keys import Keys

DeliveryStatus = Literal["waiting", "confirmed", "superseded", "dead", "settled"]
"""How a change stands.

- `waiting`: it is not settled yet.
- `confirmed`: the endpoint confirmed it, or a newer change of the same op that it was joined into.
- `superseded`: the endpoint confirmed a newer change of the other op, or one that wins over it.
- `dead`: it lies in the dead letters, or was joined into a change that does.
- `settled`: it ended, but how is no longer known (`CONTACT_SYNC_LEDGER_SECONDS`).

A change that was spooled is `waiting` until it is known to be confirmed or superseded, and again once that is
forgotten.
"""

Standing = DeliveryStatus
"""The former name of `DeliveryStatus`."""

SPOOLED: Final = "spooled"
"""What stands for a change that lies in the spool, in place of an entry's id."""

FIRST_WAIT_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 2.0
_SLOWER: Final = 1.6


class Receipt(str):
    """The id of an entry in the log, which remembers what the change said; ``spooled`` for one that is in the spool.

    Attributes:
        owner, contact, op: as it said.
        at: its time, as given or as stamped, in Unix milliseconds.
    """

    __slots__ = ("at", "contact", "op", "owner")

    owner: str
    contact: str
    op: Op
    at: int

    @classmethod
    def of(cls, entry_id: str, change: ContactChange) -> Self:
        """The receipt of a stamped change."""
        receipt = cls(entry_id)
        receipt.owner, receipt.contact, receipt.op, receipt.at = change.owner, change.contact, change.op, change.at or 0
        return receipt

    @property
    def spooled(self) -> bool:
        """Whether it was put in the spool: its entry in the log is not known, then or later."""
        return self == SPOOLED


class ReceiptLookup(NamedTuple):
    """What the workers keep of a pair, as Redis gives it; None where there is nothing."""

    position: bytes | None
    pending: bytes | None
    ledger_new: bytes | None
    ledger_old: bytes | None
    dead_pair: bytes | None


def lookups(receipt: Receipt, keys: Keys, partitions: int) -> list[tuple[str, bytes]]:
    """The hashes and their fields that `Looked` is asked from, in the order that misses nothing while workers go on.

    What is settled moves from the log to pending to the ledger, and from the newer ledger to the older one; so each is
    asked before the place that it may move to meanwhile.
    """
    p = partition_of(receipt.owner, partitions)
    pair = receipt.owner.encode() + PAIR_SEPARATOR + receipt.contact.encode()
    places = (keys.pending(p), keys.ledger_new(p), keys.ledger_old(p), keys.dead_pairs(p))
    return [(keys.partition(p), b"position"), *((place, pair) for place in places)]


def status_from(receipt: Receipt, looked: ReceiptLookup) -> DeliveryStatus:
    """How the change stands (pure)."""
    if not receipt.spooled and (looked.position is None or _order(receipt.encode()) > _order(looked.position)):
        return "waiting"
    if looked.pending is not None and _waits_in(receipt, looked.pending):
        return "waiting"
    letters, _, beside = (looked.dead_pair or b"").partition(b";")
    known = [each for each in (looked.ledger_new, looked.ledger_old, beside) if each]
    delete_at = max((_times(each)[0] for each in known), default=0)
    upsert_at = max((_times(each)[1] for each in known), default=0)
    same, other = (delete_at, upsert_at) if receipt.op == "delete" else (upsert_at, delete_at)
    # A delete wins where both are equal; a newer word of the other op is what the pair ended as.
    if other > receipt.at or (other == receipt.at and receipt.op == "upsert"):
        return "superseded"
    if same >= receipt.at:
        return "confirmed"
    if receipt.spooled:
        return "waiting"  # its entry is not known, so neither is whether it was read, nor which letter is its own
    return "dead" if letters else "settled"


def waits(draw: Iterator[float]) -> Iterator[float]:
    """How long to wait before each further look, in seconds: ever longer, and drawn so that many askers part."""
    longest = FIRST_WAIT_SECONDS
    for fraction in draw:
        yield longest * (0.5 + fraction / 2)
        longest = min(LONGEST_WAIT_SECONDS, longest * _SLOWER)


def _waits_in(receipt: Receipt, state: bytes) -> bool:
    """Whether the joined state of the pair may hold the change: its side is there, and began no later."""
    side = re.search(rb"(?:^|\x1f)%c(\d+)" % receipt.op[0].encode(), state)
    return side is not None and (receipt.spooled or int(side[1]) <= _order(receipt.encode())[0])


def _times(known: bytes) -> Sequence[int]:
    """Greatest `at` of deletes and of upserts that are settled, as the ledger writes them: `u<deletes>,<upserts>`."""
    return [int(each or 0) for each in known[1:].split(b",")]


def _order(entry_id: bytes) -> tuple[int, int]:
    ms, _, n = entry_id.partition(b"-")
    return int(ms), int(n)
