"""The Redis model and the scripts in Python, beside the Lua on a real Redis: the same steps, the same replies and keys.

Nobody can set the server's clock, so the model follows it: each step runs on the server between two looks at its time,
and on the model at each moment that this leaves, until one gives the same reply and the same keys.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers.contract.keys import Keys
from tests.simulation.redis_model import RedisModel
from tests.simulation.scripts_model import SCRIPTS
from tests.simulation.values import Stream, Text, bytes_of
from worker.core.lane import CLASSES
from worker.store import scripts
from worker.store.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.redis_model import Op
    from worker.local.redis import EmbeddedRedis

K = Keys("model")
P = 3
LOGS = (K.events(P), K.bulk(P))
PAIRS = [b"1\x1f2", b"1\x1f3", b"4\x1f2"]
HOUR_MS = 3_600_000
TOKENS = [8 * letter for letter in "abc"]
RATES = [0, 0, 0, 20, 0.7, -1]
STRINGS = [K.lease(P), K.ticker]


class Both:
    """The server and its model, in step."""

    def __init__(self, server: redis.Redis) -> None:
        self.server = server
        self.server.flushall()
        self.now_us = 0
        self.model = RedisModel(lambda: self.now_us)
        for script in vars(scripts).values():
            if isinstance(script, scripts.Script) and script.sha in SCRIPTS:
                self.load(script)

    def load(self, script: scripts.Script) -> None:
        self.server.script_load(script.text)
        self.model.script("LOAD", script.text)

    def time_us(self) -> int:
        now: Any = self.server.time()
        seconds, micros = now
        return int(seconds) * 1_000_000 + int(micros)

    def step(self, op: Op) -> Any:
        """Runs a command on both; returns the server's reply.

        Raises:
            AssertionError: at no moment that the server's clock may have shown does the model do the same.
        """
        before = self.time_us()
        name, args = op
        try:
            reply = self.server.execute_command(name.upper(), *args)  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            reply = error
        after = self.time_us()
        there = self.server_keys()
        seen_ms = self.time_us() // 1000  # what has expired by now was there or not
        keys = _unexpired(there, seen_ms)
        differences = []
        for now_us, data in product(self._moments(reply, before, after), self._expired(after)):
            self.now_us = now_us
            model = RedisModel(lambda: self.now_us)
            model.data, model.known_scripts = deepcopy(data), self.model.known_scripts
            (said,) = model.apply([_as_model(op)])
            model_keys = _unexpired(_model_keys(model), seen_ms)
            if _plain(said) == _plain(reply) and model_keys == keys:
                self.model = model
                self._follow_expiries(there)
                return reply
            differences.append(
                (
                    said,
                    {
                        key: (model_keys.get(key), keys.get(key))
                        for key in model_keys | keys
                        if model_keys.get(key) != keys.get(key)
                    },
                )
            )
        raise AssertionError(f"{op}: the server says {reply}; the model, and where its keys differ: {differences[0]}")

    def _expired(self, now_us: int) -> Iterator[dict[str, Any]]:
        """What is there, and without what expires just now: for that the server may look at its clock once more."""
        data: dict[str, Any] = self.model.data
        yield data
        if expired := {key for key in STRINGS if key in data and 0 <= (data[key].expires_ms or 0) <= now_us // 1000}:
            yield {key: value for key, value in data.items() if key not in expired}

    def _follow_expiries(self, there: dict[str, Any]) -> None:
        for key in STRINGS:
            self.model.data.pop(key, None)
            if key in there:
                self.model.data[key] = Text(*there[key])

    def _moments(self, reply: Any, before: int, after: int) -> Iterator[int]:
        """A token of claim.lua is the microsecond itself; else the millisecond decides."""
        if isinstance(reply, list) and reply and isinstance(reply[0], bytes) and reply[0].isdigit():
            yield int(reply[0])
        yield before
        yield from range((before // 1000 + 1) * 1000, after + 1, 1000)

    def server_keys(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        names: Any = self.server.keys("model:*")
        for raw in names:
            key, kind = raw.decode(), self.server.type(raw)
            if kind == b"hash":
                found[key] = self.server.hgetall(key)
            elif kind == b"stream":
                info: Any = self.server.execute_command("XINFO", "STREAM", key)  # type: ignore[no-untyped-call]
                flat = {info[i]: info[i + 1] for i in range(0, len(info), 2)} if isinstance(info, list) else info
                last = flat.get(b"last-generated-id", flat.get("last-generated-id"))
                found[key] = (self.server.execute_command("XRANGE", key, "-", "+"), last)  # type: ignore[no-untyped-call]
            elif kind == b"string":
                value, expires = self.server.get(key), self.server.pexpiretime(key)
                if value is not None and expires != -2:
                    found[key] = (value, expires)
        return found

    def of_partition(self, field: str, default: bytes = b"") -> bytes:
        return self.model.hash_of(K.partition(P)).get(field.encode(), default)


def _as_model(op: Op) -> Op:
    name, args = op
    if name == "XADD":
        return "xadd", (args[0], *args[2:])
    if name == "HSCAN":
        return "hscan", (args[0],)
    if name == "DEL":
        return "delete", args
    return (name, args) if name in {"EVALSHA", "XRANGE", "XREAD"} else (name.lower(), args)


def _model_keys(model: RedisModel) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in model.data.items():
        if isinstance(value, Stream):
            found[key] = (value.range(b"-", 1_000_000), b"%d-%d" % value.last)
        elif isinstance(value, Text):
            found[key] = (value.value, value.expires_ms)
        else:
            found[key] = value
    return found


def _unexpired(keys: dict[str, Any], now_ms: int) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in STRINGS or value[1] > now_ms}


def _plain(reply: Any) -> Any:
    """Replies without what the client makes of them."""
    if isinstance(reply, Exception):
        return type(reply)
    if isinstance(reply, (list, tuple)):
        return [_plain(each) for each in reply]
    if isinstance(reply, dict):
        return {_plain(key): _plain(value) for key, value in reply.items()}
    return int(reply) if isinstance(reply, bool) else reply.encode() if isinstance(reply, str) else reply


# What can be done: each draws its arguments, some of them from what is there, so that the common case is common.


def evalsha(script: scripts.Script, keys: list[str], args: list[Any]) -> Op:
    return "EVALSHA", (script.sha, len(keys), *keys, *args)


def some_pairs(chance: Random, *more: Callable[[Random], Any]) -> list[Any]:
    """Items that begin with a pair, flat."""
    pairs = chance.sample(PAIRS, chance.randrange(4))
    return [each for pair in pairs for each in (pair, *(one(chance) for one in more))]


def a_time(both: Both) -> Callable[[Random], int]:
    """A moment around the server's present (ms)."""
    now_ms = both.time_us() // 1000
    return lambda chance: now_ms + chance.choice((-HOUR_MS, -1000, -5, -1, 0, 1, 5, 1000, HOUR_MS))


def a_state(both: Both) -> Callable[[Random], bytes]:
    time = a_time(both)

    def state(chance: Random) -> bytes:
        first, second = time(chance), time(chance)
        forms = (b"d%d,-3" % first, b"u%d,,0" % first, b"d%d,1\x1fu%d,2,,crm" % (first, second), b"u%d\x1f?2" % first)
        return chance.choice(forms)

    return state


def remembered(both: Both) -> Callable[[Random], bytes]:
    time = a_time(both)
    return lambda chance: chance.choice((b"d%d," % time(chance), b"u,%d" % time(chance), b"u,"))


def add(both: Both, chance: Random) -> Op:
    _ = both
    return "XADD", (chance.choice(LOGS), "*", "owner", "1", "contact", chance.choice("23"))


def claim(both: Both, chance: Random) -> Op:
    _ = both
    keys = [K.lease(P), K.partition(P), *LOGS, K.late(P), K.dead(P), K.dead_pairs(P), *K.pending_classes(P)]
    keys += [K.parked(P), K.ledger_new(P), K.ledger_old(P), K.totals(P)]
    return evalsha(scripts.CLAIM, keys, [chance.choice([1, 2, HOUR_MS]), chance.choice([0, 5, HOUR_MS])])


def release(both: Both, chance: Random) -> Op:
    token = chance.choice([both.of_partition("token", b"1")] * 3 + [b"1"])
    return evalsha(scripts.RELEASE, [K.lease(P), K.partition(P)], [token])


def settle(both: Both, chance: Random) -> Op:
    token = chance.choice([both.of_partition("token", b"1")] * 6 + [b"1"])
    seq = int(both.of_partition("seq", b"0")) + chance.choice([0] * 6 + [-1, 1])
    streams = [both.model.stream_of(log) for log in LOGS]
    positions = [[b"", *(entry[0] for entry in each.entries)] if each else [b""] for each in streams]
    held = list(both.model.hash_of(K.late(P)).items())
    marks = chance.sample(held, chance.randrange(len(held) + 1))
    blocks = [
        (some_pairs(chance, remembered(both)), 2),
        *((some_pairs(chance, a_state(both)), 2) for _ in range(CLASSES)),
        *((some_pairs(chance), 1) for _ in range(CLASSES)),
        ([each for mark in marks for each in mark] + some_pairs(chance, lambda _: b"1,1"), 2),
        (chance.choice([[], [b"", b"", b"{}"], [PAIRS[0], b"", b"x"], [PAIRS[1], b"d5,", b"y"]]), 3),
        (some_pairs(chance, remembered(both)), 2),
        (chance.choice([[], ["events", 2], ["events", 1, "coalesced", -1]]), 2),
        (some_pairs(chance, lambda chance: b"%d;u5" % a_time(both)(chance)), 2),
        (some_pairs(chance), 1),
        (some_pairs(chance), 1),
    ]
    head = [token, seq, chance.choice([0, 1, HOUR_MS]), chance.choice(positions[0])]
    head += [chance.choice([1, 1, HOUR_MS]), chance.choice([0, 1, 2, 1000]), chance.choice(positions[1])]
    keys = [K.lease(P), K.partition(P), *LOGS, K.ledger_new(P), K.ledger_old(P)]
    keys += [K.late(P), K.dead(P), K.dead_pairs(P), K.totals(P), *K.pending_classes(P), K.parked(P)]
    counts = [len(items) // width for items, width in blocks]
    return evalsha(scripts.SETTLE, keys, [*head, *counts, *(item for items, _ in blocks for item in items)])


def mark_late(both: Both, chance: Random) -> Op:
    time = a_time(both)

    def until(chance: Random) -> int:
        return chance.choice((0, time(chance)))

    return evalsha(scripts.MARK_LATE, [K.late(P), K.partition(P), K.events(P)], some_pairs(chance, until, until))


def gate_ask(both: Both, chance: Random) -> Op:
    _ = both
    args = [chance.choice(TOKENS), chance.choice([0, 1, HOUR_MS]), chance.choice(RATES), chance.choice([0, 1, 3])]
    return evalsha(scripts.GATE_ASK, [K.gate], [*args, chance.choice([-5, 1000])])


def gate_enter(both: Both, chance: Random) -> Op:
    known = int(both.model.hash_of(K.gate).get(b"generation", b"0"))
    args = ["me", chance.choice([0, 1, HOUR_MS]), chance.choice([-5, 1000]), chance.choice(["", known, known - 1])]
    args.append(chance.choice(["", "", "", "somebody"]))
    return evalsha(scripts.GATE_ENTER, [K.gate], args)


def gate_report(both: Both, chance: Random) -> Op:
    known = int(both.model.hash_of(K.gate).get(b"generation", b"0"))
    kinds = ["confirmed", "confirmed", "answered", "single_rejection", "retry", "limited", "limited"]
    kinds += ["hold", "too_large", "unused"]
    what = chance.choice(kinds)
    generation = known + chance.choice([0, 0, 0, -1])
    args = [
        generation,
        what,
        chance.choice([0, 1, HOUR_MS]),
        "credentials" if what == "hold" else "",
        "HTTP 500",
    ]
    flow = [chance.choice(["", *TOKENS]), chance.choice(["", "0.700", "45.000"]), chance.choice([0, 1])]
    flow += [chance.choice([0, 1000, 5000]), chance.choice([0, 12.5]), chance.choice([0, 0, 300])]
    flow += [chance.choice(RATES), chance.choice([0, 1, 3]), 1000]
    return evalsha(scripts.GATE_REPORT, [K.gate], [*args, 7, chance.choice([1, 3]), *flow])


def pause(both: Both, chance: Random) -> Op:
    _ = both
    return evalsha(scripts.PAUSE, [K.gate], [chance.choice(["pause", "resume", "resume"])])


def redrive(both: Both, chance: Random) -> Op:
    letters = [b"", b"9-9", *both.model.hash_of(K.dead(P))]
    op, at = chance.choice(["upsert", "delete"]), a_time(both)(chance)
    keys = [K.dead(P), K.dead_pairs(P), K.events(P), K.ledger_new(P), K.ledger_old(P), K.partition(P)]
    args = [
        chance.choice(letters),
        chance.choice(PAIRS),
        op,
        at,
        chance.choice((0, a_time(both)(chance))),
    ]
    return evalsha(scripts.REDRIVE, keys, [*args, "owner", "1", "op", op, "at", at])


def purge(both: Both, chance: Random) -> Op:
    letters = [b"9-9", *both.model.hash_of(K.dead(P))]
    items = [chance.choice(letters), chance.choice([*PAIRS, b""])]
    return evalsha(scripts.PURGE, [K.dead(P), K.dead_pairs(P)], items)


def ticker(both: Both, chance: Random) -> Op:
    _ = both
    return evalsha(scripts.TICKER, [K.ticker], [chance.choice(["one", "two"]), chance.choice([1, HOUR_MS])])


def beat(both: Both, chance: Random) -> Op:
    key = chance.choice([K.config, K.partition(P)])
    told_ms = chance.choice([-1, 0, int(both.model.hash_of(key).get(b"lost_at", b"0"))])
    given = [chance.choice([0, 1, 2, 5]), chance.choice([0, 1]), chance.choice([0, 1, 2, 3]), told_ms, 8]
    return evalsha(scripts.BEAT, [key], given)


def expire(both: Both, chance: Random) -> Op:
    _ = both, chance
    return "DEL", (K.lease(P),)


def look(both: Both, chance: Random) -> Op:
    position = both.of_partition("position", b"0-0")
    some_hash = chance.choice([*K.pending_classes(P), K.late(P), K.partition(P), K.dead(P), K.totals(P), K.lease(P)])
    return chance.choice(
        [
            ("XRANGE", (K.events(P), b"(" + position, "+", "COUNT", 2)),
            ("XREAD", ("COUNT", 1, "STREAMS", *LOGS, K.events(9), "0-0", "0-0", "0-0")),
            ("XLEN", (K.events(P),)),
            ("HLEN", (some_hash,)),
            ("HMGET", (some_hash, *PAIRS, "token")),
            ("HGET", (some_hash, "late_due")),
            ("HSETNX", (K.config, "partitions", "4")),
            ("HGETALL", (K.gate,)),
            ("EXISTS", (K.lease(P), K.pending(P), K.events(P), "model:none")),
            ("MGET", (K.lease(P), K.ticker, "model:none")),
            ("TYPE", (some_hash,)),
            ("GET", (K.ticker,)),
        ]
    )


Step = Callable[[Both, Random], "Op"]


def note(both: Both, chance: Random) -> Op:
    _ = both
    return evalsha(
        scripts.NOTE, [chance.choice([K.gate, K.suppressed])], ["suppression", chance.choice(["", "a", "b"])]
    )


def record(both: Both, chance: Random) -> Op:
    _ = both
    return evalsha(scripts.RECORD, [K.suppressed], ["key", chance.choice(["k", "l"]), "at", chance.choice([1, 2])])


STEPS: list[Step] = [
    add,
    claim,
    release,
    settle,
    mark_late,
    gate_ask,
    gate_enter,
    gate_report,
    redrive,
    purge,
    ticker,
    beat,
    pause,
    note,
    record,
    expire,
    look,
]
WEIGHTED = [*STEPS, gate_ask, gate_report, add, claim, settle, settle, settle, settle, mark_late]


@pytest.fixture(scope="module")
def server(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    client = connect(redis_server.url, timeout_seconds=10)
    yield client
    client.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(WEIGHTED), st.integers(0, 2**32)), min_size=1, max_size=60))
def test_the_model_does_what_redis_does(server: redis.Redis, steps: list[tuple[Step, int]]) -> None:
    both = Both(server)
    for step, seed in steps:  # what a step takes from the server's clock must not be hypothesis' to draw
        both.step(step(both, Random(seed)))


def test_hscan_gives_every_field(server: redis.Redis) -> None:
    both = Both(server)
    both.step(evalsha(scripts.MARK_LATE, [K.late(P), K.partition(P), K.events(P)], [PAIRS[0], 1, 2, PAIRS[1], 3, 0]))
    assert server.hscan(K.late(P)) == (0, both.model.hscan(K.late(P))[1])
    assert bytes_of(5) == b"5"
