"""What an app under test emitted: the core of the pytest fixture ``contact_changes`` (docs/testing.md).

Only tests import it; it needs fakeredis, which the extra ``testing`` brings.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, overload
from weakref import WeakKeyDictionary

import fakeredis

from producers.async_producer import AsyncContactProducer
from producers.producer import ContactProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from producers.contract.change import Op

_PRODUCERS: Final = (ContactProducer, AsyncContactProducer)
_LOG: Final = re.compile(rb".+:\{\d+\}:events")


class Emitted(NamedTuple):
    """One change as it lies in the log; compared with a tuple, it is ``(op, owner, contact)``.

    Attributes:
        op: ``upsert`` or ``delete``.
        owner, contact: the pair.
        at: when it happened, in Unix milliseconds.
        source: who said so, None where nobody did.
        traceparent: W3C trace context, None where there is none.
    """

    op: Op
    owner: str
    contact: str
    at: int
    source: str | None = None
    traceparent: str | None = None

    @property
    def said(self) -> tuple[str, str, str]:
        """What tests compare: op, owner and contact."""
        return self[:3]


class ContactChanges(Sequence[Emitted]):
    """Records every producer of this process while it is entered, those made earlier too; nothing reaches a Redis.

    It is a sequence of what was emitted, in order, and equals a list of ``(op, owner, contact)``. Producers find a fake
    Redis of this object's own behind them, so that they check, stamp and answer as they always do.
    """

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()
        self._reader = fakeredis.FakeRedis(server=self._server)
        self._seen: dict[bytes, bytes] = {}
        self._emitted: list[Emitted] = []
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for kind, client in zip(_PRODUCERS, (fakeredis.FakeRedis, fakeredis.FakeAsyncRedis), strict=True):
            # What a producer has of its own stays with it, unseen, and is there again afterwards.
            self._divert(kind, "_client", _Client(partial(client, server=self._server)))
            self._divert(kind, "_packer", _Packer())
            self._divert(kind, "_exchange", self._following(kind.__dict__["_exchange"]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._undo:
            self._undo.pop()()

    # What was emitted

    @overload
    def __getitem__(self, index: int) -> Emitted: ...
    @overload
    def __getitem__(self, index: slice) -> list[Emitted]: ...
    def __getitem__(self, index: int | slice) -> Emitted | list[Emitted]:
        return self._emitted[index]

    def __len__(self) -> int:
        return len(self._emitted)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ContactChanges):
            return self is other
        if isinstance(other, str) or not isinstance(other, Iterable):
            return NotImplemented
        return [each.said for each in self] == [tuple(each)[:3] for each in other]

    __hash__ = None  # type: ignore[assignment] # it changes

    def __repr__(self) -> str:
        if not self:
            return "<no contact changes>"
        lines = [f"  {number}. {each.op} {each.owner!r} -> {each.contact!r}" for number, each in enumerate(self, 1)]
        return "\n".join(["<contact changes, in order:", *lines, ">"])

    @property
    def upserted(self) -> set[tuple[str, str]]:
        """The pairs (owner, contact) of all upserts."""
        return {(each.owner, each.contact) for each in self if each.op == "upsert"}

    @property
    def deleted(self) -> set[tuple[str, str]]:
        """The pairs (owner, contact) of all deletes."""
        return {(each.owner, each.contact) for each in self if each.op == "delete"}

    def of(self, owner: str, contact: str | None = None) -> list[Emitted]:
        """The changes of an owner, or of one pair, in order."""
        return [each for each in self if each.owner == owner and contact in {None, each.contact}]

    def assert_emitted(self, op: Op, owner: str, contact: str, *, times: int | None = None) -> None:
        """Fails, saying what was emitted instead, unless this change was: once at least, or so many ``times``.

        Raises:
            AssertionError: it was not.
        """
        found = sum(each.said == (op, owner, contact) for each in self)
        if found == times or (times is None and found):
            return
        wanted = f"{op} {owner!r} -> {contact!r}" + ("" if times is None else f", {times} times")
        raise AssertionError(f"not emitted: {wanted}" + (f", but {found} times" if found else "") + f"\n{self!r}")

    def clear(self) -> None:
        """Forgets what was emitted so far."""
        self._emitted.clear()

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """Within it producers find no Redis, and raise ``NotAccepted``."""
        self._server.connected = False
        try:
            yield
        finally:
            self._server.connected = True

    def compared_with(self, expected: Any) -> list[str]:
        """Lines that say where what was emitted differs from what a test expected, for a failure."""
        try:
            wanted = [tuple(each)[:3] for each in expected]
        except TypeError:
            return [f"contact changes are no {type(expected).__name__}"]
        said = [each.said for each in self]
        missing, more = Counter(wanted) - Counter(said), Counter(said) - Counter(wanted)
        lines = [f"the app emitted {len(said)} contact changes, not the expected {len(wanted)}:"]
        if len(said) == len(wanted):
            lines = ["the app emitted other contact changes than expected:"]
        lines += [f"  missing:    {_shown(each)}" for each in missing.elements()]
        lines += [f"  unexpected: {_shown(each)}" for each in more.elements()]
        if not missing and not more:
            lines = ["the app emitted the expected contact changes in another order:"]
            lines += [f"  {number}. {_shown(each)}" for number, each in enumerate(said, 1)]
        return lines

    # How they are recorded

    def _divert(self, kind: type, name: str, to: Any) -> None:
        missing = object()
        before = kind.__dict__.get(name, missing)
        setattr(kind, name, to)
        self._undo.append(lambda: delattr(kind, name) if before is missing else setattr(kind, name, before))

    def _following(self, exchange: Any) -> Any:
        """The producer's round trip, followed by a look at what it left in the log."""
        changes = self

        def follow(producer: Any, commands: bytes, count: int) -> Any:
            answer = exchange(producer, commands, count)
            changes._look(commands)
            return answer

        async def follow_async(producer: Any, commands: bytes, count: int) -> Any:
            answer = await exchange(producer, commands, count)
            changes._look(commands)
            return answer

        return follow_async if exchange is AsyncContactProducer._exchange else follow  # noqa: SLF001 - the same

    def _look(self, commands: bytes) -> None:
        """Takes what is new in the log, in the order in which one round trip's commands name its partitions."""
        if not self._server.connected:
            return
        logs = [key for key in _words(commands) if _LOG.fullmatch(key)]
        with self._lock:
            new = {key: self._new(key) for key in dict.fromkeys(logs)}
            self._emitted += [new[key].pop(0) for key in logs if new[key]]

    def _new(self, key: bytes) -> list[Emitted]:
        after = self._seen.get(key)
        entries: Any = self._reader.xrange(key, min=b"(" + after if after else "-")
        if entries:
            self._seen[key] = entries[-1][0]
        return [_emitted(fields) for _, fields in entries]


class _Client:
    """The client of every producer, for the time of a test; each has one, as an asyncio client is of one loop."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def __get__(self, producer: Any, kind: type) -> Any:
        if producer not in self._made:
            self._made[producer] = self._make()
        return self._made[producer]

    def __set__(self, producer: Any, client: Any) -> None:
        producer.__dict__["_client"] = client  # its own, which it has again afterwards


class _Packer:
    """What every producer has agreed with the fake Redis; what it agreed with a real one is another number."""

    def __init__(self) -> None:
        self._agreed: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def __get__(self, producer: Any, kind: type) -> Any:
        return self._agreed.get(producer)

    def __set__(self, producer: Any, encoder: Any) -> None:
        producer.__dict__.setdefault("_packer", None)
        self._agreed[producer] = encoder


def _emitted(fields: dict[bytes, bytes]) -> Emitted:
    said = {name.decode(): value.decode() for name, value in fields.items()}
    op: Any = said["op"]
    return Emitted(op, said["owner"], said["contact"], int(said["at"]), said.get("source"), said.get("traceparent"))


def _words(commands: bytes) -> Iterator[bytes]:
    """The words of packed commands, which are length-prefixed."""
    at = 0
    while at < len(commands):
        end = commands.index(b"\r\n", at)
        if commands[at : at + 1] == b"$":
            length = int(commands[at + 1 : end])
            yield commands[end + 2 : end + 2 + length]
            end += 2 + length
        at = end + 2


def _shown(said: Sequence[object]) -> str:
    op, owner, contact = (*said, "?", "?", "?")[:3]
    return f"{op} {owner!r} -> {contact!r}"
