"""What happens in a world, written down for the oracle as it happens; and what must hold of Redis after each step."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import orjson

from producers.contract.keys import PAIR_SEPARATOR, Keys
from tests.proof.history import Change, DeadLetter
from tests.simulation.values import bytes_of
from worker.core.codec import decode_mark, decode_parked, decode_state
from worker.store import scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.simulation.actors import Actor
    from tests.simulation.endpoint_model import Request
    from tests.simulation.redis_model import Op, RedisModel
    from tests.simulation.world import World

_ENDS: Final = (b"records_confirmed", b"coalesced", b"superseded", b"stale", b"dead_lettered", b"suppressed")
_KEYS: Final = Keys("s")
_GATE: Final = _KEYS.gate

WATCHED: Final = frozenset({"EVALSHA", "XADD", "XRANGE", "HMGET"})
"""The commands of which the chronicle takes note."""


class Broken(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """Something that must hold of Redis after each step does not."""


class Chronicle:
    """Keeps what the oracle needs.

    Attributes:
        changes: every accepted entry.
        sent: every request.
        letters: every dead letter there was, by id.
        peak_pending: most pairs that waited in a partition at once.
        unsent: how many requests never left, because their deadline had passed.
        jumps_us: when Redis' clock jumped (monotonic).
        erasing: who is being erased.
        listed: who was suppressed, from the moment at which a process that begins may know.
        erased: the same, from the moment at which the gate was told.
        replies: what scripts said, each with the digest of the script.
        held: how many requests in a row have left the endpoint held.
    """

    def __init__(self, model: RedisModel, now_ms: Callable[[], int], mono_us: Callable[[], int]) -> None:
        self.changes: list[Change] = []
        self.sent: list[Request] = []
        self.letters: dict[str, DeadLetter] = {}
        self.peak_pending: dict[int, int] = {}
        self.unsent = 0
        self.jumps_us: list[int] = []
        self.erasing = ""
        self.listed: frozenset[str] = frozenset()
        self.erased: frozenset[str] = frozenset()
        self.replies: set[tuple[str, bytes]] = set()
        self.held = 0
        self._leases: dict[int, tuple[bytes, int]] = {}  # token of each holder, and when it ends (Unix ms)
        self._model = model
        self._now_ms = now_ms
        self._mono_us = mono_us
        self._places: dict[str, tuple[int, int]] = {}  # of each request: since when, and until when (monotonic)
        self._went: dict[str, int] = {}
        self._asked_until_ms = 0
        self._last_settles: dict[int, Sequence[Any]] = {}

    def note(self, actor: Actor, name: str, args: Sequence[Any], reply: Any, world: World) -> None:
        """Takes note of what one command of an actor did; of those that `WATCHED` does not name there is nothing."""
        if name == "EVALSHA":
            if isinstance(reply, Exception):
                return
            watch = _WATCHED.get(args[0])
            if watch is not None:
                watch(self, actor, args[2:], reply)
            word = reply[0] if type(reply) is list else reply
            if type(word) is bytes and not word.isdigit():
                self.replies.add((args[0], word))
            if world.story is not None:
                world.tell("{} {} -> {}", _NAMES[args[0]], args[2:], reply)
        elif name == "XADD":
            self._said(args, reply)
        elif name == "XRANGE" and isinstance(args[1], bytes) and actor.name != "erase":
            # A scan of a cluster looks from the first entry on.
            actor.read_ms, actor.probes = self._now_ms(), False
            # Each read begins with the live log; the bulk lane's is read only if it holds anything.
            p, settled = _partition(args[0]), args[1][1:].decode()
            live = args[0] == _KEYS.events(p)
            bulk_from = actor.bulk_from.get(p, "0-0")
            actor.read_from[p] = (settled, bulk_from) if live else (actor.read_from.get(p, ("0-0", ""))[0], settled)
        elif name == "HMGET" and args[0] == _GATE:
            actor.request, actor.read_from = None, {}  # a ticker's scan: what it reads from here on belongs to no round

    def outcomes(self) -> set[str]:
        """What scripts said, each with the name of the script."""
        return {f"{_NAMES[sha]}: {word.decode()}" for sha, word in self.replies}

    @staticmethod
    def name_of(op: Op) -> str:
        """A command's name, or that of its script."""
        return _NAMES.get(op[1][0], op[0]) if op[0] == "EVALSHA" else op[0]

    def forget_round(self, actor: Actor) -> None:
        """Whatever an actor read and sent was of the round before."""
        actor.request, actor.read_from, actor.placed_us = None, {}, None

    def _asked(self, actor: Actor, args: Sequence[Any], reply: Any) -> None:
        actor.looked, actor.looked_us = reply[3][0] or b"ok", self._mono_us()
        actor.placed_us = None
        if reply[0] == b"go" and actor.looked == b"ok":
            actor.placed_us = self._mono_us()
            self._check_flow(args)

    def _check_flow(self, args: Sequence[Any]) -> None:
        """A place was given: the whole fleet never has more than is configured, in a second or at once."""
        token, life_ms, rate, in_flight = args[1:5]
        now_us = self._mono_us()
        self._places = {each: place for each, place in self._places.items() if place[1] > now_us}
        self._went = {each: at_us for each, at_us in self._went.items() if at_us > now_us - 1_000_000}
        self._places[token] = now_us, now_us + 1000 * (life_ms - 1)
        self._went[token] = now_us
        if rate > 0 and len(self._went) > rate + 2:
            raise Broken(f"{len(self._went)} requests in a second, of at most {rate:g}")
        if in_flight > 0 and len(self._places) > in_flight:
            raise Broken(f"{len(self._places)} requests under way, of at most {in_flight}")

    def _reported(self, _actor: Actor, args: Sequence[Any], reply: Any) -> None:
        token = args[8]
        self._places.pop(token, None)
        if args[2] == "unused":
            self._went.pop(token, None)
        else:
            self.held = self.held + 1 if reply == b"held" else 0
        if args[2] in {"retry", "limited", "hold"} and args[11] > 0:
            self._asked_until_ms = max(self._asked_until_ms, self._model.now_ms + args[11])

    def forget_places(self) -> None:
        """Redis' clock jumped: which places are over by it is not known here."""
        self._places.clear()
        self._went.clear()
        self._asked_until_ms = 0
        self.jumps_us.append(self._mono_us())

    def _entered(self, actor: Actor, _args: Sequence[Any], reply: Any) -> None:
        actor.probes = reply[0] == b"probe"
        if reply[0] != b"closed" and self._model.now_ms < self._asked_until_ms:
            raise Broken("a request goes out although the endpoint asked to wait")
        actor.suppressed = self.erased

    def _noted(self, _actor: Actor, args: Sequence[Any], _reply: Any) -> None:
        if args[0] == _KEYS.suppressed:
            self.listed |= {self.erasing}
        elif args[1] == "suppression":
            self.erased |= {self.erasing}

    def _said(self, args: Sequence[Any], reply: bytes) -> None:
        """Whoever erases says a delete."""
        fields = dict(zip(args[2::2], args[3::2], strict=True))
        owner, contact = fields["owner"].decode(), fields["contact"].decode()
        change = Change(
            reply.decode(), _partition(args[0]), owner, contact, "delete", fields["at"], accepted_ms=self._now_ms()
        )
        self.changes.append(change)

    def _claimed(self, actor: Actor, args: Sequence[Any], reply: Any) -> None:
        if reply is not None:
            actor.leases[_partition(args[0])] = self._mono_us() + 1000 * int(args[19])
            self._leases[_partition(args[0])] = reply[0], self._model.now_ms + int(args[19])
            actor.bulk_from[_partition(args[0])] = reply[4].decode()

    def check_leases(self, actor: Actor, deadline_us: int) -> None:
        """A request begins: by the clock that never jumps, no lease may end before its deadline."""
        for p in actor.read_from:
            if actor.leases.get(p, 0) < deadline_us:
                raise Broken(f"partition {p}: a request goes out whose deadline lies behind the end of its lease")

    def forget_lease(self, p: int) -> None:
        """A lease was lost, as it may be."""
        self._leases.pop(p, None)

    def forget_leases(self) -> None:
        """When leases end is not known here any more."""
        self._leases.clear()

    def roll_back(self, p: int) -> None:
        """A partition is as it was before, or the same: what it holds is what there is of its dead letters."""
        self._last_settles.pop(p, None)
        there = {letter_id.decode() for letter_id in self._model.hash_of(_KEYS.dead(p))}
        for letter_id, letter in list(self.letters.items()):
            if letter.partition == p and letter_id in there:
                self.letters[letter_id] = letter._replace(gone_ms=None)
            elif letter.partition == p and letter.gone_ms is None:
                del self.letters[letter_id]

    def forget_expired(self) -> None:
        """The clock is about to move: a lease that is over stays over, whatever it will show."""
        now_ms = self._model.now_ms
        self._leases = {p: lease for p, lease in self._leases.items() if lease[1] > now_ms}

    def _settled(self, actor: Actor, args: Sequence[Any], reply: Any) -> None:
        p = _partition(args[0])
        if reply[0] != b"settled":
            token, ends_ms = self._leases.get(p, (b"", 0))
            if reply[0] == b"fenced" and ends_ms > self._model.now_ms and self._model.text(args[0]) != token:
                raise Broken(f"partition {p}: somebody who is fenced takes the lease from its holder")
            return
        if self._last_settles.get(p) != args[19:21]:  # one whose reply was lost is answered again, and renews nothing
            self._last_settles[p] = args[19:21]
            self._leases.pop(p, None)
            actor.leases.pop(p, None)
            if int(args[21]):
                self._leases[p] = args[19], self._model.now_ms + int(args[21])
                actor.leases[p] = self._mono_us() + 1000 * int(args[21])
        argv = args[19:]
        if actor.request is not None and p in actor.request.read_from:
            live, bulk = actor.request.settled.get(p, actor.request.read_from[p])
            actor.request.settled[p] = argv[3].decode() or live, argv[6].decode() or bulk
            actor.request.ended_ms = self._now_ms()
        if argv[6]:
            actor.bulk_from[p] = argv[6].decode()
        if argv[25]:
            self._note_letters(p)
        self.peak_pending[p] = max(self.peak_pending.get(p, 0), sum(reply[9:]))
        self._check(p)

    def _released(self, actor: Actor, args: Sequence[Any], reply: Any) -> None:
        if not reply:
            return
        p = _partition(args[0])
        token, ends_ms = self._leases.pop(p, (b"", 0))
        actor.leases.pop(p, None)
        if bytes_of(args[2]) != token and ends_ms > self._model.now_ms:
            raise Broken(f"partition {p}: somebody who lost the lease releases it from its holder")
        self._check(p)

    def _marked(self, _actor: Actor, args: Sequence[Any], _reply: Any) -> None:
        self._check_marks(_partition(args[0]))

    def _redriven(self, _actor: Actor, args: Sequence[Any], reply: Any) -> None:
        if reply[0] != b"redriven":
            return
        dead, argv = args[0], args[6:]
        fields = dict(zip(argv[5::2], argv[6::2], strict=True))
        owner, contact = fields["owner"].decode(), fields["contact"].decode()
        entry_id = reply[1].decode()
        p, log = _partition(dead), args[2]
        self.changes.append(
            Change(
                entry_id,
                p,
                owner,
                contact,
                fields["op"],
                fields["at"],
                accepted_ms=self._now_ms(),
                lane="bulk" if log == _KEYS.bulk(p) else "live",
            )
        )
        if argv[0]:
            self._gone(argv[0])

    def _purged(self, _actor: Actor, args: Sequence[Any], _reply: Any) -> None:
        for letter_id in args[2::2]:
            self._gone(letter_id)

    def _gone(self, letter_id: str) -> None:
        letter = self.letters[letter_id]
        if letter.gone_ms is None:
            self.letters[letter_id] = letter._replace(gone_ms=self._now_ms())

    def _note_letters(self, p: int) -> None:
        for raw_id, value in self._model.hash_of(_KEYS.dead(p)).items():
            letter_id = raw_id.decode()
            if letter_id not in self.letters:
                found = orjson.loads(value)
                self.letters[letter_id] = DeadLetter(
                    letter_id,
                    p,
                    found["owner"],
                    found["contact"],
                    found["op"],
                    found["at"],
                    found["reason"],
                    found["entry"],
                    self._now_ms(),
                )

    # What must hold after each step that moves a partition

    def _check(self, p: int) -> None:
        totals = self._model.hash_of(_KEYS.totals(p))
        events = int(totals.get(b"events", 0))
        ended = sum(int(totals.get(name, 0)) for name in _ENDS)
        classes = [self._model.hash_of(key) for key in _classes_of(p)]
        pending = {pair: value for each in classes for pair, value in each.items()}
        if len(pending) < sum(map(len, classes)):
            raise Broken(f"partition {p}: a pair waits in two classes")
        parked = self._model.hash_of(_KEYS.parked(p))
        if both := pending.keys() & parked.keys():
            raise Broken(f"partition {p}: parked, and waiting too: {both}")
        states = [*map(decode_state, pending.values()), *(decode_parked(value).state for value in parked.values())]
        waits = sum(state.live for state in states)
        if events != ended + waits:
            raise Broken(f"partition {p}: {events} events, but {ended} ended and {waits} wait: {totals}")
        if any(int(number) < 0 for number in totals.values()):
            raise Broken(f"partition {p}: a counter is negative: {totals}")
        self._check_logs(p)
        for field, lane in (("oldest", classes[: len(classes) // 2]), ("oldest_bulk", classes[len(classes) // 2 :])):
            since = [decode_state(value).first_ms for each in lane for value in each.values()]
            if since and int(self._model.hget(_KEYS.partition(p), field) or 1 << 62) > min(since):
                raise Broken(f"partition {p}: something older waits than it says")
        self._check_parked(p, parked)
        known = {(each.owner, each.contact) for each in self.changes if each.partition == p}
        if len(pending) + len(parked) > len(known):
            raise Broken(f"partition {p}: more pairs wait than there are")
        self._check_dead_pairs(p)
        self._check_marks(p)

    def _check_logs(self, p: int) -> None:
        for log, name in ((_KEYS.events(p), b"position"), (_KEYS.bulk(p), b"bulk_position")):
            settled, stream = self._model.hash_of(_KEYS.partition(p)).get(name), self._model.stream_of(log)
            if (
                settled
                and stream
                and stream.range(b"-", 1)
                and stream.range(b"-", 1) != stream.range(b"(" + settled, 1)
            ):
                raise Broken(f"partition {p}: entries up to {settled!r} are settled and not trimmed")

    def _check_parked(self, p: int, parked: Mapping[bytes, bytes]) -> None:
        due = int(self._model.hget(_KEYS.partition(p), "parked_due") or 1 << 62)
        if parked and due > min(decode_parked(value).due_ms for value in parked.values()):
            raise Broken(f"partition {p}: a parked pair is due before the partition says so")

    def _check_marks(self, p: int) -> None:
        marks = self._model.hash_of(_KEYS.late(p))
        due = int(self._model.hget(_KEYS.partition(p), "late_due") or 1 << 62)
        if marks and due > min(decode_mark(value).until_ms for value in marks.values()):
            raise Broken(f"partition {p}: a late mark is due before the partition says so")

    def _check_dead_pairs(self, p: int) -> None:
        counted: dict[bytes, int] = {}
        for letter in self.letters.values():
            if letter.partition == p and letter.gone_ms is None and letter.reason == "refused":
                pair = (letter.owner or "").encode() + PAIR_SEPARATOR + (letter.contact or "").encode()
                counted[pair] = counted.get(pair, 0) + 1
        kept = {pair: int(value.partition(b";")[0]) for pair, value in self._model.hash_of(_KEYS.dead_pairs(p)).items()}
        if kept != counted:
            raise Broken(f"partition {p}: pairs with dead letters are {counted}, kept is {kept}")


_classes_of: Final = cache(_KEYS.pending_classes)


@cache
def _partition(key: str) -> int:
    return int(key[key.index("{") + 1 : key.index("}")])


_WATCHED: Final = {
    scripts.CLAIM.sha: Chronicle._claimed,  # noqa: SLF001 - its own
    scripts.RELEASE.sha: Chronicle._released,  # noqa: SLF001 - its own
    scripts.SETTLE.sha: Chronicle._settled,  # noqa: SLF001 - its own
    scripts.MARK_LATE.sha: Chronicle._marked,  # noqa: SLF001
    scripts.GATE_ASK.sha: Chronicle._asked,  # noqa: SLF001
    scripts.GATE_REPORT.sha: Chronicle._reported,  # noqa: SLF001
    scripts.GATE_ENTER.sha: Chronicle._entered,  # noqa: SLF001
    scripts.REDRIVE.sha: Chronicle._redriven,  # noqa: SLF001
    scripts.PURGE.sha: Chronicle._purged,  # noqa: SLF001
    scripts.NOTE.sha: Chronicle._noted,  # noqa: SLF001
}
_NAMES: Final = {
    scripts.CLAIM.sha: "claim",
    scripts.RELEASE.sha: "release",
    scripts.SETTLE.sha: "settle",
    scripts.MARK_LATE.sha: "mark_late",
    scripts.BEAT.sha: "beat",
    scripts.GATE_ASK.sha: "gate_ask",
    scripts.GATE_ENTER.sha: "gate_enter",
    scripts.GATE_REPORT.sha: "gate_report",
    scripts.REDRIVE.sha: "redrive",
    scripts.PURGE.sha: "purge",
    scripts.NOTE.sha: "note",
    scripts.RECORD.sha: "record",
    scripts.TICKER.sha: "ticker",
}
