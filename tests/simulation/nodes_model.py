"""A cluster in memory: nodes with clocks of their own that serve slots, and what becomes of slots and nodes.

All nodes share one store of keys, since each key is on one of them at a time. What differs is who serves a key, by
which clock, and whether he answers. While a slot moves, the keys that it has taken along are known.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError, TryAgainError

from producers.nodes.slots import SLOTS
from producers.nodes.url import Address
from tests.simulation.values import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from producers.contract.keys import Keys
    from tests.simulation.redis_model import Op, RedisModel
    from tests.simulation.values import Value

_SCRIPT: Final = frozenset({"EVALSHA", "EVAL"})

slot_of_key = cache(lambda key: key_slot(key.encode()))
"""The slot of a key."""


class Since(NamedTuple):
    """When a replica got something for the last time, by both clocks: Redis' own may jump until it takes over.

    Attributes:
        mono_us: by the clock that never jumps.
        time_ms: as the oracle knows Redis' clock (Unix ms).
    """

    mono_us: int
    time_ms: int


class Replica(NamedTuple):
    """A replica that gets nothing more.

    Attributes:
        kept: the keys that it has.
        since: when it got something for the last time.
    """

    kept: dict[str, Value]
    since: Since


@dataclass(slots=True, eq=False)
class Node:
    """One node.

    Attributes:
        address: where it listens.
        skew_us: by how much its clock is ahead of the others'.
        refuses_until_us: until when nobody listens there (monotonic).
        hangs_until_us: until when it does not answer (monotonic).
        known_scripts: digests that EVALSHA knows.
        replica: what its replica has, None while it has all.
    """

    address: Address
    skew_us: int = 0
    refuses_until_us: int = 0
    hangs_until_us: int = 0
    known_scripts: set[str] = field(default_factory=set)
    replica: Replica | None = None


@dataclass(slots=True, eq=False)
class Moving:
    """A slot on its way.

    Attributes:
        to: where to.
        moved: the keys that are there.
    """

    to: Node
    moved: set[str] = field(default_factory=set)


class ClusterModel:
    """The nodes, and which slot is where.

    Args:
        model: the keys of all of them.
        keys: of the namespace.
        places: the node of each slot that holds anything: of gate, ticker, configuration and deletes, and of each
            partition.
        skews: by how much the clock of each node is ahead (us).

    Attributes:
        nodes: all of them.
    """

    def __init__(self, model: RedisModel, keys: Keys, places: Sequence[int], skews: Sequence[int]) -> None:
        self._model = model
        self.nodes = [Node(Address("node", 7000 + n), skew) for n, skew in enumerate(skews)]
        named = [keys.gate, keys.ticker, keys.config, keys.deletes]
        named += [keys.lease(p) for p in range(len(places) - len(named))]
        self._owner = {slot_of_key(key): self.nodes[n] for key, n in zip(named, places, strict=True)}
        self._moving: dict[int, Moving] = {}

    def node_of(self, key: str) -> Node:
        """Who serves a key, also while its slot is on its way."""
        slot = slot_of_key(key)
        moving = self._moving.get(slot)
        if moving is not None and key in moving.moved:
            return moving.to
        return self._owner.get(slot, self.nodes[0])

    def at(self, address: Address) -> Node:
        """The node that listens there."""
        return self.nodes[address.port - 7000]

    def use(self, node: Node) -> None:
        """The model goes by this node's clock, and knows its scripts."""
        self._model.skew_us, self._model.known_scripts = node.skew_us, node.known_scripts

    def slots(self) -> list[Any]:
        """CLUSTER SLOTS."""
        found, since = [], 0
        for slot in sorted(self._owner):
            if slot > since:
                found.append([since, slot - 1, self._told(self.nodes[0])])
            found.append([slot, slot, self._told(self._owner[slot])])
            since = slot + 1
        return [*found, [since, SLOTS - 1, self._told(self.nodes[0])]]

    @staticmethod
    def _told(node: Node) -> list[Any]:
        return [node.address.host.encode(), node.address.port, b"%040d" % node.address.port]

    # Commands

    def apply(self, node: Node, op: Op, *, asking: bool) -> Any:
        """What a node replies to one command: it carries it out, or says where to go."""
        model = self._model
        model.skew_us, model.known_scripts = node.skew_us, node.known_scripts
        name, args = op
        if name == "TIME":
            return model.reply_to(op)
        slot = slot_of_key(args[2 if name in _SCRIPT else 0])
        if (moving := self._moving.get(slot)) is None:
            owner = self._owner.get(slot, self.nodes[0])
            return model.reply_to(op) if node is owner else _moved(slot, owner)
        keys = _keys(op)
        if elsewhere := self._redirection(node, slot, keys, moving, asking=asking):
            return elsewhere
        reply = model.reply_to(op)
        if node is moving.to:
            moving.moved.update(key for key in keys if key in model.data)
        return reply

    def _redirection(
        self, node: Node, slot: int, keys: Sequence[str], moving: Moving, *, asking: bool
    ) -> Exception | None:
        owner = self._owner.get(slot, self.nodes[0])
        if node is owner:
            missing = sum(key in moving.moved or not self._model.exists(key) for key in keys)
            if missing == len(keys):
                return AskError(f"{slot} {moving.to.address.host}:{moving.to.address.port}")
            return TryAgainError("keys are on their way") if missing else None
        if node is moving.to and asking:
            missing = sum(key not in moving.moved or not self._model.exists(key) for key in keys)
            return TryAgainError("keys are on their way") if missing and len(keys) > 1 else None
        return _moved(slot, owner)

    # What becomes of slots

    def begin_to_move(self, key: str, to: Node) -> bool:
        """A key's slot begins to move; whether it does."""
        slot = slot_of_key(key)
        source = self._owner.get(slot, self.nodes[0])
        if slot in self._moving or source is to or source.replica is not None or to.replica is not None:
            return False  # what comes to a node whose replica gets nothing more would be lost as a whole
        self._moving[slot] = Moving(to)
        return True

    def move_some(self, key: str, several: int) -> None:
        """So many keys of a moving slot are taken along."""
        slot = slot_of_key(key)
        moving = self._moving.get(slot)
        if moving is None:
            return
        left = sorted(each for each in self._model.data if slot_of_key(each) == slot and each not in moving.moved)
        for each in left[:several]:
            self._take_along(each, self._owner.get(slot, self.nodes[0]), moving.to)
            moving.moved.add(each)

    def end_move(self, key: str) -> bool:
        """A moving slot has arrived; whether it was one."""
        slot = slot_of_key(key)
        if slot not in self._moving:
            return False
        self.move_some(key, len(self._model.data))
        self._owner[slot] = self._moving.pop(slot).to
        return True

    def end_all_moves(self) -> None:
        """Every moving slot has arrived."""
        for slot in list(self._moving):
            self.end_move(next((key for key in self._model.data if slot_of_key(key) == slot), ""))
            if (moving := self._moving.pop(slot, None)) is not None:  # it holds no key
                self._owner[slot] = moving.to

    def _take_along(self, key: str, source: Node, to: Node) -> None:
        value = self._model.data[key]
        if type(value) is Text and value.expires_ms is not None:  # MIGRATE takes along how long it has left
            self._model.data[key] = value._replace(expires_ms=value.expires_ms + (to.skew_us - source.skew_us) // 1000)

    # What becomes of nodes

    def keys_of(self, node: Node) -> Iterator[str]:
        """The keys that a node holds."""
        return (key for key in self._model.data if self.node_of(key) is node)

    def stop_replicating(self, node: Node, since: Since) -> None:
        """Its replica gets nothing more from now on."""
        if node.replica is None and not self._moving:
            node.replica = Replica({key: deepcopy(self._model.data[key]) for key in self.keys_of(node)}, since)

    def fail_over(self, node: Node, skew_us: int) -> Since | None:
        """Its replica takes over, with a clock of its own and no scripts.

        Returns:
            Since when what the node had accepted is lost, None if nothing is.
        """
        node.skew_us, node.known_scripts = skew_us, set()
        if node.replica is None:
            return None
        kept, since = node.replica
        node.replica = None
        for key in list(self.keys_of(node)):
            del self._model.data[key]
        # A slot that left meanwhile left its replica too, and one that came was never there.
        self._model.data.update({key: value for key, value in kept.items() if self.node_of(key) is node})
        return since


def _moved(slot: int, owner: Node) -> MovedError:
    return MovedError(f"{slot} {owner.address.host}:{owner.address.port}")


def _keys(op: Op) -> list[str]:
    name, args = op
    if name in _SCRIPT:
        return list(args[2 : 2 + args[1]])
    if name in {"EXISTS", "MGET", "DEL", "UNLINK"}:
        return list(args)
    return [args[0]]
