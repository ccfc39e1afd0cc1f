"""Round trips with a cluster, step by step: what is sent where, what is sent again, and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.exceptions import AskError, ClusterDownError, MasterDownError, MovedError, TryAgainError

from producers.nodes.exchange import Answer
from producers.nodes.slots import slot_of
from producers.nodes.trip import AskForSlots, Command, NodeAwayError, Nodes, NotAClusterError, Ping, Rest, Write
from producers.nodes.url import Address

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = Address("a", 1), Address("b", 2)
MAP = [[0, 8191, [b"a", 1, b"id"]], [8192, 16383, [b"b", 2, b"id"]]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Two nodes that answer as a test wants, and what was sent to each."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.nodes = Nodes([A, B], self.clock)
        self.answers: dict[Address, Callable[[list[bytes]], Answer]] = {}
        self.sent: list[tuple[Address, list[bytes]]] = []
        self.pings: list[Address] = []
        self.pong = False
        self.maps = 0

    def run(self, *commands: Command) -> list[Any]:
        steps = self.nodes.trip(commands)
        result: Any = None
        writing = False
        try:
            while True:
                step = steps.send(result)
                match step:
                    case AskForSlots():
                        assert not writing, "asked for the slots in the middle of a trip"
                        self.maps += 1
                        result = MAP
                    case Ping(node):
                        self.pings.append(node)
                        result = self.pong
                    case Rest():
                        result = None
                    case Write(parcels):
                        writing = True
                        result = {node: self._write(node, parcel.commands) for node, parcel in parcels.items()}
        except StopIteration as end:
            return [replies[0] for replies in end.value]

    def _write(self, node: Address, packed: bytes) -> Answer:
        words = [each for each in packed.split(b"|") if each]
        self.sent.append((node, words))
        answer = self.answers.get(node)
        return answer(words) if answer is not None else Answer([b"OK"] * len(words))


def at(slot: int, name: bytes) -> Command:
    return Command(slot, (name + b"|",))


def test_commands_go_to_their_nodes_in_their_order() -> None:
    cluster = Cluster()
    assert cluster.run(at(0, b"1"), at(9000, b"2"), at(1, b"3")) == [b"OK"] * 3
    assert cluster.sent == [(A, [b"1", b"3"]), (B, [b"2"])]
    assert cluster.maps == 1


@pytest.mark.parametrize("written", [True, False])
def test_what_may_have_been_carried_out_is_never_sent_again(
    written: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda _: Answer([b"OK"], redis.ConnectionError("lost"), written)
    first, lost, others = cluster.run(at(0, b"1"), at(1, b"2"), at(9000, b"3"))
    assert (first, others) == (b"OK", b"OK")
    assert isinstance(lost, NodeAwayError)
    assert lost.written is written
    assert len(cluster.sent) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        ClusterDownError("The cluster is down"),
        MasterDownError("Link with MASTER is down"),
        redis.ResponseError("BUSY Redis is busy running a script."),
    ],
)
def test_a_node_that_says_that_it_serves_nothing_is_away_until_it_serves(refusal: redis.RedisError) -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda words: Answer([refusal] * len(words))
    first, second, other = cluster.run(at(0, b"1"), at(1, b"2"), at(9000, b"3"))
    for each in (first, second):
        assert isinstance(each, NodeAwayError)
        assert not each.written
    assert (other, cluster.nodes.away()) == (b"OK", {A: str(refusal).rstrip(".")})
    del cluster.answers[A]
    assert cluster.run(at(0, b"4")) == [b"OK"]
    assert cluster.nodes.away() == {}


def test_what_a_node_refuses_of_one_command_is_the_replies_own() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda _: Answer([redis.ResponseError("BUSYGROUP Consumer Group name already exists")])
    [reply] = cluster.run(at(0, b"1"))
    assert not isinstance(reply, NodeAwayError)
    assert cluster.nodes.away() == {}


def test_a_command_that_moved_is_sent_to_its_new_node_once_and_the_next_goes_there() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda words: Answer([MovedError("0 b:2") for _ in words])
    assert cluster.run(at(0, b"1")) == [b"OK"]
    assert cluster.run(at(0, b"2")) == [b"OK"]
    assert [node for node, _ in cluster.sent] == [A, B, B]


def test_a_command_that_is_asked_elsewhere_goes_there_once_and_the_next_does_not() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda words: Answer([AskError("0 b:2") for _ in words])
    cluster.answers[B] = lambda _: Answer([b"OK", b"entry"])
    assert cluster.run(at(0, b"1")) == [b"entry"]
    assert cluster.sent[1] == (B, [b"*1\r\n$6\r\nASKING\r\n1"])
    cluster.run(at(0, b"2"))
    assert cluster.sent[2][0] == A


def test_a_slot_on_its_way_is_tried_again_once_and_is_then_the_callers_to_decide() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda words: Answer([TryAgainError("wait") for _ in words])
    [reply] = cluster.run(at(0, b"1"))
    assert isinstance(reply, TryAgainError)
    assert len(cluster.sent) == 2


def test_a_slot_that_each_node_sends_on_to_another_is_left_alone_then_tried_once_and_used_again_when_it_is_served() -> (
    None
):
    cluster = Cluster()
    answers: dict[Address, Callable[[list[bytes]], Answer]] = {
        A: lambda words: Answer([MovedError("0 b:2") if each == b"1" else b"OK" for each in words]),
        B: lambda words: Answer([MovedError("0 a:1") if each == b"1" else b"OK" for each in words]),
    }
    cluster.answers |= answers
    for sent, seconds in ((6, 0.0), (0, 0.9), (2, 0.2), (0, 1.9), (2, 0.2)):
        cluster.clock.now += seconds
        cluster.sent.clear()
        lost, other = cluster.run(at(0, b"1"), at(1, b"2"))
        assert isinstance(lost, NodeAwayError)
        assert (lost.written, other) == (False, b"OK")
        assert sum(b"1" in words for _, words in cluster.sent) == sent
    cluster.clock.now += 4.1
    cluster.answers.clear()
    assert cluster.run(at(0, b"1")) == [b"OK"]
    assert cluster.run(at(0, b"1")) == [b"OK"]
    assert cluster.nodes.away() == {}


def test_a_command_without_a_key_is_asked_of_another_node_if_the_first_is_away() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda _: Answer([], redis.TimeoutError("slow"))
    assert cluster.run(Command(None, (b"1|",))) == [b"OK"]
    assert [node for node, _ in cluster.sent] == [A, B]


def test_it_is_asked_no_more_if_none_is_left() -> None:
    cluster = Cluster()
    cluster.answers[A] = cluster.answers[B] = lambda _: Answer([], redis.ConnectionError("gone"), written=False)
    [reply] = cluster.run(Command(None, (b"1|",)))
    assert isinstance(reply, NodeAwayError)
    assert [node for node, _ in cluster.sent] == [A, B]


def test_a_node_that_hangs_is_left_alone_then_pinged_once_and_used_again_when_it_answers() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda _: Answer([], redis.TimeoutError("slow"))
    cluster.run(at(0, b"1"))
    [left] = cluster.run(at(0, b"2"))
    assert isinstance(left, NodeAwayError)
    assert not left.written
    assert len(cluster.sent) == 1
    cluster.clock.now += 1.1
    cluster.run(at(0, b"3"))
    cluster.run(at(0, b"4"))
    assert cluster.pings == [A]
    assert len(cluster.sent) == 1
    cluster.clock.now += 5.0
    cluster.pong = True
    del cluster.answers[A]
    assert cluster.run(at(0, b"5")) == [b"OK"]
    assert cluster.nodes.away() == {}


def test_the_slots_are_asked_for_between_trips_and_not_too_often() -> None:
    cluster = Cluster()
    cluster.answers[A] = lambda _: Answer([], redis.ConnectionError("gone"), written=False)
    for _ in range(10):
        cluster.run(at(0, b"1"))
    assert cluster.maps == 1
    cluster.clock.now += 0.5
    cluster.run(at(0, b"1"))
    assert cluster.maps == 2


def test_a_server_that_is_no_node_is_said() -> None:
    steps = Nodes([A]).trip([at(0, b"1")])
    next(steps)
    with pytest.raises(NotAClusterError):
        steps.send(redis.ResponseError("This instance has cluster support disabled"))


@pytest.mark.parametrize(
    ("words", "slot"),
    [
        (("GET", "{7}x"), slot_of(("SET", "7"))),
        (("EVALSHA", "sha", 2, "{7}a", "{7}b", "arg"), slot_of(("SET", "7"))),
        (("EVAL", "text", 0), None),
        (("TIME",), None),
        (("INFO", "memory"), None),
        (("SCRIPT LOAD", "text"), None),
        (("MEMORY USAGE", "{7}x"), slot_of(("SET", "7"))),
        (("XREAD", "COUNT", 1, "STREAMS", "{7}x", "0-0"), slot_of(("SET", "7"))),
    ],
)
def test_the_slot_of_a_command_is_that_of_its_first_key(words: tuple[Any, ...], slot: int | None) -> None:
    assert slot_of(words) == slot
