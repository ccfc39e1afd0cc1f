"""Which node of a cluster serves which slot. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from redis.crc import key_slot

from producers.nodes.url import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLOTS: Final = 16384

_KEYLESS: Final = frozenset(
    {b"ACL", b"ASKING", b"CLIENT", b"CLUSTER", b"CONFIG", b"EXEC", b"INFO", b"MULTI", b"PING", b"SCRIPT", b"TIME"}
    | {b"ROLE", b"WAIT"}
)
_NUMBERED: Final = frozenset({b"EVAL", b"EVALSHA"})
_NUMBER_AT: Final = 2
_SUBCOMMANDS: Final = frozenset({b"MEMORY", b"OBJECT"})


def _bytes(word: object) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


@lru_cache(maxsize=256)
def _name(word: object) -> tuple[bytes, bytes]:
    """A command's name and what follows it in the same word."""
    name, _, more = _bytes(word).upper().partition(b" ")
    return name, more


@lru_cache(maxsize=1 << 14)
def _slot_of_key(key: object) -> int:
    return key_slot(_bytes(key))


def slot_of(words: Sequence[Any]) -> int | None:
    """Returns the slot of a command by its first key; None if it has no key."""
    name, more = _name(words[0])
    if name in _KEYLESS:
        return None
    if name in _NUMBERED:
        if not int(words[_NUMBER_AT]):
            return None
        at = _NUMBER_AT + 1
    elif name in _SUBCOMMANDS:
        at = 1 if more else 2
    elif name == b"XREAD":
        at = next(i for i, each in enumerate(words) if _bytes(each).upper() == b"STREAMS") + 1
    else:
        at = 1
    return _slot_of_key(words[at]) if len(words) > at else None


class SlotMap:
    """The nodes of a cluster, and the slots of each."""

    def __init__(self) -> None:
        self._masters: list[Address | None] = [None] * SLOTS
        self._known: tuple[Address, ...] = ()
        self._replicas: dict[Address, int] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def node_of(self, slot: int) -> Address | None:
        """Returns the master that serves a slot; None if none is known."""
        return self._masters[slot]

    @property
    def masters(self) -> list[Address]:
        """Every master that serves a slot, in a fixed order."""
        return sorted({each for each in self._masters if each is not None})

    @property
    def known(self) -> tuple[Address, ...]:
        """Every node, replicas too."""
        return self._known

    def replicas_of(self, master: Address) -> int:
        """Returns how many replicas a master has."""
        return self._replicas.get(master, 0)

    def learn(self, slot: int, address: Address) -> None:
        """Notes where a slot has moved to."""
        self._masters[slot] = address

    def read(self, reply: Sequence[Any], asked: Address) -> None:
        """Takes the reply to CLUSTER SLOTS.

        Args:
            reply: of the node.
            asked: that node: it gives no host for itself if it does not know its own.
        """
        masters: list[Address | None] = [None] * SLOTS
        known: dict[Address, None] = {}
        replicas: dict[Address, int] = {}
        for first, last, *nodes in reply:
            addresses = list(_addresses(nodes, asked))
            known.update(dict.fromkeys(addresses))
            replicas[addresses[0]] = len(addresses) - 1
            masters[first : last + 1] = [addresses[0]] * (last + 1 - first)
        self._masters, self._known, self._replicas = masters, tuple(known), replicas


def _addresses(nodes: Sequence[Any], asked: Address) -> Iterator[Address]:
    for host, port, *_ in nodes:
        yield address_told(host, port, asked)


def address_told(host: str | bytes | None, port: int, asked: Address) -> Address:
    """Returns the address that a node told; without a host, or an unknown one, it is that of the node itself."""
    text = host.decode() if isinstance(host, bytes) else host
    return Address(asked.host if text in {None, "", "?"} else str(text), int(port))
