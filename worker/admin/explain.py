"""Reads all that is known of one pair: what is waiting, confirmed, late or dead, and what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from producers.contract.change import ID_MAX_BYTES, partition_of
from worker.core.codec import decode_dead_pair, decode_mark, decode_parked, decode_remembered, decode_state
from worker.core.entry import Malformed, entry_time_ms, pair_of, read_entry
from worker.core.lane import LIVE
from worker.core.pair import join, join_remembered, state_of, suppressed_verdict, verdict
from worker.store.client import command, read_together
from worker.store.dead_letters import DeadLetters, Wanted
from worker.store.gate import Gate
from worker.store.inbox import entries_of
from worker.store.replies import all_checked
from worker.store.suppressions import read_suppression

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

    from producers.contract.change import Lane
    from producers.contract.keys import Keys
    from worker.core.codec import Mark, Parked
    from worker.core.dead_letter import DeadLetter
    from worker.core.entry import Change
    from worker.core.gate import GateSnapshot
    from worker.core.inbox_map import InboxMap
    from worker.core.pair import PairState, Readd, Remembered, Verdict
    from worker.store.namespace import Namespace

SCAN_ENTRIES: Final = 200_000
"""Maximum number of entries of the log that are read: more would take seconds. The user is told of the rest."""

_PAGE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry about the pair: the change in it, or what is wrong with it."""

    id: str
    says: Change | Malformed
    lane: Lane = "live"

    @property
    def time_ms(self) -> int:
        """When Redis accepted it (Unix ms)."""
        return entry_time_ms(self.id.encode())


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of a pair.

    Attributes:
        partition: the partition of its owner.
        entries: its entries in the log.
        inbox: its entries in the inbox, stamped as they will be in the log.
        cut: the number of entries of the log that were not read, 0 if all were.
        pending: what workers have read and the endpoint has not confirmed.
        parked: the same as `pending` if the endpoint refused it with an unknown code: then it is None there.
        lane: the lane in which the pair waits, None if it does not.
        known: what was confirmed, as far as that is remembered.
        mark: until when unanswered requests may still act on it.
        letters: its dead letters.
        leased: whether a worker holds its partition now.
        next: what will be sent, None if nothing is waiting.
        gate: the state of the endpoint, and the time by Redis' clock.
        suppressed: whether somebody in it was erased, so that its upserts are refused.
    """

    partition: int
    entries: Sequence[Entry]
    inbox: Sequence[Entry]
    cut: int
    pending: PairState | None
    known: Remembered | None
    mark: Mark | None
    letters: Sequence[DeadLetter]
    leased: bool
    next: Verdict | None
    gate: GateSnapshot
    lane: Lane | None = None
    parked: Parked | None = None
    suppressed: bool = False

    @property
    def unknown(self) -> bool:
        """Whether nothing was found of the pair."""
        return self.next is None and not (self.known or self.letters or self.inbox or self.entries or self.mark)


def explain(  # noqa: PLR0913 - the pair, and the settings that decide its end
    namespace: Namespace,
    owner: str,
    contact: str,
    *,
    readd: Readd,
    id_max: int = ID_MAX_BYTES,
    inbox_map: InboxMap | None = None,
) -> Explanation:
    """Reads what is known of a pair; changes nothing.

    Args:
        namespace: where it lies.
        owner: the owner's XC user id.
        contact: the contact's XC user id.
        readd: what happens to an upsert that is known to be later than a delete (contract, section 3.2).
        id_max: most characters of an id.
        inbox_map: how the inbox reads messages of change data capture; None if it does not.

    Raises:
        redis.RedisError: Redis does not answer, or refuses.
    """
    client, keys, partitions = namespace
    pair, p = pair_of(owner.encode(), contact.encode()), partition_of(owner, partitions)
    # The inbox and the log first: a change that moves or is settled meanwhile is then read twice, which is harmless,
    # but never missed.
    inbox = [
        Entry(entry_id.decode(), read_entry(entry_id, fields, p, partitions, id_max=id_max))
        for entry_id, fields in entries_of(namespace, owner.encode(), contact.encode(), inbox_map)
    ]
    live, seen = _scan(namespace, p, pair, "live", id_max)
    bulk, bulk_seen = _scan(namespace, p, pair, "bulk", id_max)
    entries = [*live, *bulk]
    parked_value, *classes, new, old, mark, dead_pair, leased, length, bulk_length = _read_pair(client, keys, p, pair)
    pending = next((each for each in classes if each is not None), None)
    parked = decode_parked(parked_value) if parked_value and pending is None else None
    comes_live = bool(inbox or live) or any(classes[each] is not None for each in LIVE)
    comes_live |= parked is not None and not parked.bulk
    unread = (max(0, length - seen) if seen >= SCAN_ENTRIES else 0) + (
        max(0, bulk_length - bulk_seen) if bulk_seen >= SCAN_ENTRIES else 0
    )
    dead = decode_dead_pair(dead_pair).confirmed if dead_pair is not None else None
    known = join_remembered(
        join_remembered(decode_remembered(new) if new else None, decode_remembered(old) if old else None), dead
    )
    waiting = decode_state(pending) if pending else None
    state = _joined(parked.state if parked else waiting, [*inbox, *entries])
    gate = Gate(namespace).snapshot()
    suppressed = bool(read_suppression(namespace).among([pair], gate.now_ms))
    reached = None
    if state is not None:
        reached = suppressed_verdict(state) if suppressed else verdict(state, known, readd)
    return Explanation(
        partition=p,
        entries=entries,
        inbox=inbox,
        cut=unread,
        pending=waiting,
        parked=parked,
        known=known,
        mark=decode_mark(mark) if mark else None,
        # In all partitions: an entry in the wrong partition becomes a dead letter there.
        letters=list(DeadLetters(namespace).find(Wanted(owner=owner, contact=contact))),
        leased=bool(leased),
        next=reached,
        gate=gate,
        suppressed=suppressed,
        lane=None if state is None else "live" if comes_live else "bulk",
    )


def _read_pair(client: redis.Redis, keys: Keys, p: int, pair: bytes) -> list[Any]:
    def queue(pipe: Any) -> None:
        for key in (
            keys.parked(p),
            *keys.pending_classes(p),
            keys.ledger_new(p),
            keys.ledger_old(p),
            keys.late(p),
            keys.dead_pairs(p),
        ):
            command(pipe, "HGET", key, pair)
        pipe.exists(keys.lease(p))
        pipe.xlen(keys.events(p))
        pipe.xlen(keys.bulk(p))

    return all_checked(read_together(client, queue))


def _scan(namespace: Namespace, p: int, pair: bytes, lane: Lane, id_max: int) -> tuple[list[Entry], int]:
    """Returns the entries of a pair in one of its logs, and the number of entries that were read."""
    client, keys, partitions = namespace
    found, seen = [], 0
    for entry_id, flat in _entries(client, keys.bulk(p) if lane == "bulk" else keys.events(p)):
        seen += 1
        says = read_entry(entry_id, flat, p, partitions, lane, id_max)
        if isinstance(says, Malformed):
            of = pair_of(says.fields.get(b"owner", b""), says.fields.get(b"contact", b""))
        else:
            of = says.pair
        if of == pair:
            found.append(Entry(entry_id.decode(), says, lane))
        if seen >= SCAN_ENTRIES:
            break
    return found, seen


def _entries(client: redis.Redis, key: str) -> Iterator[tuple[bytes, list[bytes]]]:
    first = b"-"
    while page := command(client, "XRANGE", key, first, "+", "COUNT", _PAGE):
        yield from page
        first = b"(" + page[-1][0]


def _joined(pending: PairState | None, entries: Sequence[Entry]) -> PairState | None:
    states = [] if pending is None else [pending]
    for entry in entries:
        if not isinstance(entry.says, Malformed):
            _, op, at, entry_ms, source = entry.says
            states.append(state_of(op, at, entry_ms, source))
    return reduce(join, states) if states else None
