"""Records what an app under test emits: the core of the pytest fixture ``contact_changes`` (docs/tutorials/testing.md).

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
from producers.protocol import ProducerProtocol
from producers.send.steps import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from producers.contract.change import Lane, Op

_LOG: Final = re.compile(rb".+:\{\d+\}:(?:events|bulk)")


class Emitted(NamedTuple):
    """One change as it is in the log. Compared with a tuple, it equals ``(op, owner, contact)``.

    Attributes:
        op: ``upsert`` or ``delete``.
        owner, contact: the pair.
        at: when it happened, in Unix milliseconds.
        source: which system reported the change, None if unknown.
        traceparent: W3C trace context, None if there is none.
        lane: ``live`` or ``bulk``.
    """

    op: Op
    owner: str
    contact: str
    at: int
    source: str | None = None
    traceparent: str | None = None
    lane: Lane = "live"

    @property
    def compared(self) -> tuple[str, str, str]:
        """The part that tests compare: op, owner and contact."""
        return self[:3]


class ContactChanges(Sequence[Emitted]):
    """Records all producers of this process while it is entered, earlier ones too; nothing reaches a real Redis.

    It is a sequence of what was emitted, in order, and equals a list of ``(op, owner, contact)``. The producers use a
    fake Redis of this object, so that they check, stamp and reply as usual.
    """

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()
        self._reader = fakeredis.FakeRedis(server=self._server)
        self._seen: dict[bytes, bytes] = {}
        self._emitted: list[Emitted] = []
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        # Each producer keeps its own client and encoder, hidden, and uses them again afterwards.
        self._replace(ContactProducer, "_client", _Client(partial(fakeredis.FakeRedis, server=self._server)))
        self._replace(AsyncContactProducer, "_client", _Client(partial(fakeredis.FakeAsyncRedis, server=self._server)))
        self._replace(ProducerProtocol, "_encoder", _Encoder())
        self._replace(ContactProducer, "_perform", self._recording(ContactProducer.__dict__["_perform"]))
        self._replace(
            AsyncContactProducer, "_perform", self._recording_async(AsyncContactProducer.__dict__["_perform"])
        )
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
        return [each.compared for each in self] == [tuple(each)[:3] for each in other]

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
        """Fails unless this change was emitted: at least once, or exactly ``times`` times.

        Raises:
            AssertionError: it was not; the text says what was emitted instead.
        """
        found = sum(each.compared == (op, owner, contact) for each in self)
        if found == times or (times is None and found):
            return
        wanted = f"{op} {owner!r} -> {contact!r}" + ("" if times is None else f", {times} times")
        raise AssertionError(f"not emitted: {wanted}" + (f", but {found} times" if found else "") + f"\n{self!r}")

    def clear(self) -> None:
        """Forgets everything emitted so far."""
        self._emitted.clear()

    @contextmanager
    def redis_away(self) -> Iterator[None]:
        """Within this context Redis is unavailable, and producers raise ``NotAccepted``."""
        self._server.connected = False
        try:
            yield
        finally:
            self._server.connected = True

    def compared_with(self, expected: Any) -> list[str]:
        """Returns lines that explain how the emitted changes differ from the expected ones."""
        try:
            wanted = [tuple(each)[:3] for each in expected]
        except TypeError:
            return [f"contact changes cannot be compared with {type(expected).__name__}"]
        emitted = [each.compared for each in self]
        missing, more = Counter(wanted) - Counter(emitted), Counter(emitted) - Counter(wanted)
        lines = [f"the app emitted {len(emitted)} contact changes, not the expected {len(wanted)}:"]
        if len(emitted) == len(wanted):
            lines = ["the app emitted other contact changes than expected:"]
        lines += [f"  missing:    {_shown(each)}" for each in missing.elements()]
        lines += [f"  unexpected: {_shown(each)}" for each in more.elements()]
        if not missing and not more:
            lines = ["the app emitted the expected contact changes in another order:"]
            lines += [f"  {number}. {_shown(each)}" for number, each in enumerate(emitted, 1)]
        return lines

    # How it is recorded

    def _replace(self, kind: type, name: str, to: Any) -> None:
        missing = object()
        before = kind.__dict__.get(name, missing)
        setattr(kind, name, to)
        self._undo.append(lambda: delattr(kind, name) if before is missing else setattr(kind, name, before))

    def _recording(self, perform: Any) -> Any:
        """Returns the producer's driver, which then also records what each exchange left in the log."""

        def recording(producer: Any, step: Any) -> Any:
            result = perform(producer, step)
            self._record(step)
            return result

        return recording

    def _recording_async(self, perform: Any) -> Any:
        """``_recording`` for asyncio."""

        async def recording(producer: Any, step: Any) -> Any:
            result = await perform(producer, step)
            self._record(step)
            return result

        return recording

    def _record(self, step: Any) -> None:
        """Records the new entries of the log, in the order in which the commands of an exchange name their streams."""
        if not isinstance(step, Exchange) or not self._server.connected:
            return
        logs = [key for key in _words(step.encoder.pack(step.chunk)) if _LOG.fullmatch(key)]
        with self._lock:
            new = {key: self._new(key) for key in dict.fromkeys(logs)}
            self._emitted += [new[key].pop(0) for key in logs if new[key]]

    def _new(self, key: bytes) -> list[Emitted]:
        after = self._seen.get(key)
        entries: Any = self._reader.xrange(key, min=b"(" + after if after else "-")
        if entries:
            self._seen[key] = entries[-1][0]
        lane: Lane = "bulk" if key.endswith(b":bulk") else "live"
        return [_emitted(fields, lane) for _, fields in entries]


class _Client:
    """Replaces every producer's client during a test. Each gets its own: an asyncio client has one event loop."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def __get__(self, producer: Any, kind: type) -> Any:
        if producer not in self._made:
            self._made[producer] = self._make()
        return self._made[producer]

    def __set__(self, producer: Any, client: Any) -> None:
        producer.__dict__["_client"] = client  # used again after the test


class _Encoder:
    """Replaces the encoder of every producer during a test: the fake Redis may have another number of partitions."""

    def __init__(self) -> None:
        self._agreed: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def __get__(self, protocol: Any, kind: type) -> Any:
        return self._agreed.get(protocol)

    def __set__(self, protocol: Any, encoder: Any) -> None:
        protocol.__dict__.setdefault("_encoder", None)
        self._agreed[protocol] = encoder


def _emitted(fields: dict[bytes, bytes], lane: Lane) -> Emitted:
    texts = {name.decode(): value.decode() for name, value in fields.items()}
    op: Any = texts["op"]
    owner, contact, at = texts["owner"], texts["contact"], int(texts["at"])
    return Emitted(op, owner, contact, at, texts.get("source"), texts.get("traceparent"), lane)


def _words(commands: bytes) -> Iterator[bytes]:
    """Yields the words of packed commands, which are length-prefixed."""
    at = 0
    while at < len(commands):
        end = commands.index(b"\r\n", at)
        if commands[at : at + 1] == b"$":
            length = int(commands[at + 1 : end])
            yield commands[end + 2 : end + 2 + length]
            end += 2 + length
        at = end + 2


def _shown(change: Sequence[object]) -> str:
    op, owner, contact = (*change, "?", "?", "?")[:3]
    return f"{op} {owner!r} -> {contact!r}"
