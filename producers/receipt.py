"""Receipts: asks Redis what happened to one change, if and when somebody wants to know.

A receipt costs nothing until then: it is the entry's id and the content of the change. The status is computed from what
the workers keep anyway: how far the log is settled, which pairs wait, and what was confirmed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self

from producers.contract.change import ContactChange, partition_of
from producers.contract.keys import PAIR_SEPARATOR
from producers.contract.query import Query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from producers.contract.change import Lane, Op
    from producers.contract.keys import Keys

DeliveryStatus = Literal["waiting", "confirmed", "superseded", "dead", "settled"]
"""The status of a change.

- `waiting`: it is not settled yet.
- `confirmed`: the endpoint confirmed it, or a newer change of the same op that it was joined into.
- `superseded`: the endpoint confirmed a newer change of the other op, or one that wins over it.
- `dead`: it is in the dead letters, or was joined into a change that is.
- `settled`: it is done, but the outcome is no longer known (`CONTACT_SYNC_LEDGER_SECONDS`).

A spooled change is `waiting` until it is known to be confirmed or superseded, and again once that is forgotten.
"""

Standing = DeliveryStatus
"""The former name of `DeliveryStatus`."""

SPOOLED: Final = "spooled"
"""Stands in place of an entry's id for a change that is in the spool."""

FIRST_WAIT_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 2.0
_SLOWER: Final = 1.6


class Receipt(str):
    """The id of an entry in the log, with the content of its change; ``spooled`` for a change in the spool.

    Attributes:
        owner, contact, op: of the change.
        at: its time, as given or as stamped, in Unix milliseconds.
        lane: which stream it took.
    """

    __slots__ = ("at", "contact", "lane", "op", "owner")

    owner: str
    contact: str
    op: Op
    at: int
    lane: Lane

    @classmethod
    def of(cls, entry_id: str, change: ContactChange, at: int | None = None) -> Self:
        """Returns the receipt of a change that was stamped with `at`; None for its own."""
        receipt = cls(entry_id)
        receipt.owner, receipt.contact, receipt.op = change.owner, change.contact, change.op
        receipt.at = at or change.at or 0
        receipt.lane = change.lane or "live"
        return receipt

    @property
    def spooled(self) -> bool:
        """Whether the change was put into the spool: its entry in the log is then never known."""
        return self == SPOOLED


class SentReceipt(Receipt):
    """The receipt that ``ContactProducer`` returns; it can ask how long the change still waits.

    A copy, also a pickled one, is a plain ``Receipt``.
    """

    __slots__ = ("_ask",)

    _ask: Callable[[Receipt], float]

    def asking(self, ask: Callable[[Receipt], float]) -> Self:
        """Returns the same receipt, which asks so."""
        self._ask = ask
        return self

    def eta(self) -> float:
        """Estimates how many seconds the change still waits; 0.0 if it is done.

        It is what waits before the change, in its lane and in those that go first, at the rate at which records are
        being confirmed. That rate is measured between two questions of the same producer, for half a second if there
        was none before. It is infinite while nothing is being confirmed: deliveries are paused, or no worker runs. So
        it is while Redis does not take the change out of the spool.

        Raises:
            redis.RedisError: Redis did not answer, or refused.
            PartitionsMismatch: the log has another number of partitions than configured.
            SpoolError: the change is in the spool, which cannot be read.
        """
        return self._ask(self)

    def __reduce__(self) -> tuple[Callable[..., Receipt], tuple[str, ContactChange]]:
        """Returns how to make a plain copy."""
        return Receipt.of, (str(self), _change_of(self))


class AsyncSentReceipt(Receipt):
    """The receipt that ``AsyncContactProducer`` returns; as ``SentReceipt``, with ``await``."""

    __slots__ = ("_ask",)

    _ask: Callable[[Receipt], Awaitable[float]]

    def asking(self, ask: Callable[[Receipt], Awaitable[float]]) -> Self:
        """Returns the same receipt, which asks so."""
        self._ask = ask
        return self

    async def eta(self) -> float:
        """Estimates how many seconds the change still waits; as ``SentReceipt.eta``."""
        return await self._ask(self)

    def __reduce__(self) -> tuple[Callable[..., Receipt], tuple[str, ContactChange]]:
        """Returns how to make a plain copy."""
        return Receipt.of, (str(self), _change_of(self))


class ReceiptLookup(NamedTuple):
    """What the workers keep of a pair, as Redis returns it; None if there is nothing.

    Attributes:
        position: how far the log of the change's lane is settled.
        settled_ms: when the number of partitions was changed (Unix ms): every older entry is settled, in any log.
        pending: the pair's joined states, one if it waits or is parked.
        ledger_new, ledger_old: what was confirmed.
        dead_pair: what is known of its dead letters.
    """

    position: bytes | None
    settled_ms: bytes | None
    pending: tuple[bytes, ...]
    ledger_new: bytes | None
    ledger_old: bytes | None
    dead_pair: bytes | None

    @classmethod
    def of(cls, replies: Iterable[Sequence[bytes | None]]) -> Self:
        """Returns the replies to the commands of ``lookups``, by name."""
        [[position, settled_ms], *rest] = replies
        places = [found for [found] in rest]
        before, *pending, after, ledger_new, ledger_old, dead_pair = places
        parked = (each.partition(b";")[2] for each in (before, after) if each)  # the state stands behind a time
        states = (*pending, *parked)
        return cls(position, settled_ms, tuple(state for state in states if state), ledger_new, ledger_old, dead_pair)


def lookups(receipt: Receipt, keys: Keys, partitions: int) -> Query:
    """Returns the commands to read a ``ReceiptLookup``, in an order that misses nothing while workers go on.

    A change moves from the log to pending to the ledger, and from the newer ledger to the older one. So each place is
    read before the place that the change may move to meanwhile. Among the pending pairs it moves from bulk to live, and
    between those of one lane in any direction: so each lane's are read forth and back. A pair is parked out
    of pending and may return to it: so is the place of parked pairs.
    """
    p = partition_of(receipt.owner, partitions)
    pair = receipt.owner.encode() + PAIR_SEPARATOR + receipt.contact.encode()
    classes = keys.pending_classes(p)
    live, bulk = classes[: len(classes) // 2], classes[len(classes) // 2 :]
    pending = (*bulk, *reversed(bulk[:-1]), *live, *reversed(live[:-1]))
    parked = keys.parked(p)
    places = (parked, *pending, parked, keys.ledger_new(p), keys.ledger_old(p), keys.dead_pairs(p))
    # A receipt that was pickled before there were lanes has none.
    position = b"bulk_position" if getattr(receipt, "lane", "live") == "bulk" else b"position"
    return Query((("HMGET", keys.partition(p), position, b"settled_ms"), *(("HMGET", place, pair) for place in places)))


def status_from(receipt: Receipt, found: ReceiptLookup) -> DeliveryStatus:
    """Computes the status of a change (pure)."""
    if not receipt.spooled and not _is_settled(receipt, found):
        return "waiting"
    if any(_waits_in(receipt, state) for state in found.pending):
        return "waiting"
    letters, _, beside = (found.dead_pair or b"").partition(b";")
    known = [each for each in (found.ledger_new, found.ledger_old, beside) if each]
    delete_at = max((_times(each)[0] for each in known), default=0)
    upsert_at = max((_times(each)[1] for each in known), default=0)
    same, other = (delete_at, upsert_at) if receipt.op == "delete" else (upsert_at, delete_at)
    # If both times are equal, the delete wins. If the other op is newer, the pair ended as that op.
    if other > receipt.at or (other == receipt.at and receipt.op == "upsert"):
        return "superseded"
    if same >= receipt.at:
        return "confirmed"
    if receipt.spooled:
        return "waiting"  # its entry is unknown, and so is whether it was read, or which dead letter is its own
    return "dead" if letters else "settled"


def waits(draw: Iterator[float]) -> Iterator[float]:
    """Yields how long to wait before each next query, in seconds: ever longer, and random so that callers spread out.

    Args:
        draw: random numbers from 0 to 1.
    """
    longest = FIRST_WAIT_SECONDS
    for fraction in draw:
        yield longest * (0.5 + fraction / 2)
        longest = min(LONGEST_WAIT_SECONDS, longest * _SLOWER)


def _is_settled(receipt: Receipt, found: ReceiptLookup) -> bool:
    """Returns whether the entry is read and settled, so that the change is where the pair is."""
    order = _order(receipt.encode())
    if found.settled_ms is not None and order[0] < int(found.settled_ms):
        return True
    return found.position is not None and order <= _order(found.position)


def _change_of(receipt: Receipt) -> ContactChange:
    return ContactChange(owner=receipt.owner, contact=receipt.contact, op=receipt.op, at=receipt.at, lane=receipt.lane)


def _waits_in(receipt: Receipt, state: bytes) -> bool:
    """Returns whether the joined state of the pair may contain the change: it has that op, and began no later."""
    side = re.search(rb"(?:^|\x1f)%c(\d+)" % receipt.op[0].encode(), state)
    return side is not None and (receipt.spooled or int(side[1]) <= _order(receipt.encode())[0])


def _times(known: bytes) -> Sequence[int]:
    """Returns the greatest `at` of settled deletes and upserts, which the ledger stores as `u<deletes>,<upserts>`."""
    return [int(each or 0) for each in known[1:].split(b",")]


def _order(entry_id: bytes) -> tuple[int, int]:
    ms, _, n = entry_id.partition(b"-")
    return int(ms), int(n)
