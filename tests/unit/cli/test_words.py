"""Times, durations and texts as the commands write them, and the pure parts of what they tell."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest

from worker.admin.check_redis import check_persistence, check_server
from worker.admin.drain import drain
from worker.admin.status import TOTALS, Status
from worker.cli.session import printable, shown_url
from worker.cli.worker import worker_command
from worker.core.dead_letter import DeadLetter, RedrivableChange
from worker.core.gate import GateSnapshot
from worker.core.pair import Remembered
from worker.core.times import in_words, iso_utc

if TYPE_CHECKING:
    from worker.core.gate import State

T = 1_795_460_847_757


def status(*, backlog: int = 0, pending: int = 0, in_flight: int = 0, state: State = "ok") -> Status:
    gate = GateSnapshot(T, state, 0, 0, None, "", "", 0, 0)
    return Status(64, backlog, pending, in_flight, None, 0, True, gate, dict.fromkeys(TOTALS, 0), [])


def letter(**fields: Any) -> DeadLetter:
    given: dict[str, Any] = {
        "id": "3-1",
        "partition": 3,
        "owner": "1",
        "contact": "2",
        "op": "upsert",
        "at": None,
        "source": None,
        "reason": "refused",
        "code": None,
        "field": None,
        "message": None,
        "since_ms": T,
        "entry": None,
        "entry_ms": T,
    }
    return DeadLetter(**given | fields)


# Words


def test_moments_are_written_in_iso_8601_utc_to_the_millisecond() -> None:
    assert iso_utc(T) == "2026-11-23T19:07:27.757Z"
    assert iso_utc(10**20) == "9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (0.34, "0.3 s"), (42, "42 s"), (61, "1 min 1 s"), (12_000, "3 h 20 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_written_in_their_two_largest_units(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_shown_url_holds_neither_user_nor_password_nor_options() -> None:
    assert shown_url("rediss://me:pass@redis.example:6380/1?password=secret") == "rediss://redis.example:6380/1"
    assert shown_url("unix:///run/redis.sock?db=0&password=secret") == "unix:///run/redis.sock"


def test_what_others_wrote_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\x0ac"


# The worker's command line


def test_the_worker_is_celery_itself_with_gossip_and_mingle_off() -> None:
    assert worker_command(8, "threads", "INFO", ["--events"]) == [
        *(sys.executable, "-P", "-m", "worker", "-A", "worker", "worker"),
        *("--pool", "threads", "--concurrency", "8", "--loglevel", "INFO"),
        *("--without-gossip", "--without-mingle", "--events"),
    ]


# Draining, by an injected clock


def drained(*looks: Status, timeout_seconds: float | None = None) -> tuple[str, int, float]:
    """How it ended, after how many looks, and when; the last look repeats itself, but not for ever."""
    now = 0.0
    seen = 0
    rest = itertools.chain(looks, itertools.repeat(looks[-1], 100))

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def count(_: Status) -> None:
        nonlocal seen
        seen += 1

    end, _ = drain(lambda: next(rest), count, timeout_seconds=timeout_seconds, monotonic=lambda: now, sleep=sleep)
    return end, seen, now


def test_draining_ends_when_nothing_waits_and_nothing_is_in_flight() -> None:
    assert drained(status(backlog=1), status(pending=1), status(in_flight=1), status())[:2] == ("drained", 4)


def test_draining_gives_up_at_the_timeout_and_no_later() -> None:
    end, looks, seconds = drained(status(pending=1), timeout_seconds=0.9)
    assert (end, looks) == ("timeout", 6)
    assert seconds == pytest.approx(0.9)


def test_draining_looks_once_even_without_any_time() -> None:
    assert drained(status(), timeout_seconds=0)[0] == "drained"
    assert drained(status(backlog=1), timeout_seconds=0)[0] == "timeout"


def test_draining_ends_at_once_where_the_endpoint_is_held() -> None:
    assert drained(status(pending=1, state="held"))[:2] == ("held", 1)


def test_draining_waits_while_the_endpoint_backs_off() -> None:
    assert drained(status(pending=1, state="backing_off"), status())[:2] == ("drained", 2)


def test_a_held_endpoint_is_no_obstacle_where_nothing_waits() -> None:
    assert drained(status(state="held"))[0] == "drained"


# What a letter states


def test_a_change_without_at_counts_as_of_the_time_of_its_entry() -> None:
    stated = letter().redrivable
    assert stated is not None
    assert stated.at == T


def test_a_change_keeps_its_at() -> None:
    stated = letter(at=T - 5).redrivable
    assert stated is not None
    assert stated.at == T - 5


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "bad_op", "op": "bad"},
        {"reason": "missing_owner", "owner": None},
        {"reason": "bad_owner", "owner": "a\nb"},
        {"reason": "at_out_of_range", "at": 1},
        {"entry_ms": 5},
    ],
)
def test_a_malformed_entry_states_no_change(fields: dict[str, Any]) -> None:
    assert letter(**fields).redrivable is None


@pytest.mark.parametrize(
    ("op", "known", "outdated"),
    [
        ("upsert", None, False),
        ("upsert", Remembered("upsert", 0, T - 1), False),
        ("upsert", Remembered("upsert", 0, T), True),
        ("upsert", Remembered("delete", T, 0), True),
        ("delete", Remembered("upsert", 0, T), False),
        ("delete", Remembered("upsert", 0, T + 1), True),
        ("delete", Remembered("delete", T, 0), True),
    ],
)
def test_newer_knowledge_outdates_a_letter(op: Any, known: Remembered | None, *, outdated: bool) -> None:
    assert RedrivableChange(b"1", b"2", op, T, b"").outdated_by(known) is outdated


# Judging a server


@pytest.mark.parametrize(
    ("version", "severity"), [("6.0.16", "wrong"), ("6.2.0", "ok"), ("7.4.1", "ok"), ("10.0", "ok")]
)
def test_a_redis_older_than_6_2_is_wrong(version: str, severity: str) -> None:
    assert next(iter(check_server({"redis_version": version}, "redis://x"))).severity == severity


@pytest.mark.parametrize(("policy", "severity"), [("noeviction", "ok"), ("allkeys-lru", "wrong")])
def test_an_eviction_policy_that_drops_changes_is_wrong(policy: str, severity: str) -> None:
    _, eviction = check_server({"redis_version": "7.4", "maxmemory_policy": policy}, "redis://x")
    assert eviction.severity == severity


@pytest.mark.parametrize(
    ("aof", "appendfsync", "save", "severity", "risk"),
    [
        (1, "always", "", "ok", "loses nothing"),
        (1, "everysec", "", "ok", "may lose the last"),
        (1, "no", "", "warn", "may lose"),
        (1, None, None, "warn", "does not tell"),
        (0, "everysec", "3600 1", "warn", "since the last one"),
        (0, "everysec", "", "warn", "loses everything"),
        (0, None, None, "warn", "does not tell"),
    ],
)
def test_persistence_is_told_with_what_it_risks(
    aof: int, appendfsync: str | None, save: str | None, severity: str, risk: str
) -> None:
    found = check_persistence({"aof_enabled": aof}, appendfsync, save)
    assert found.severity == severity
    assert risk in found.message
