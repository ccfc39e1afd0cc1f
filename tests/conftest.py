"""Fixtures of every test: a real Redis, a namespace in it, the stand-in endpoint, a fleet, and the one way to wait."""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.fleet import Fleet
from tests.support.waiting import wait_until as wait_until_true
from tests.support.worker_process import PROCESS, broker_url
from worker.local.redis import EmbeddedRedis
from worker.standin.server import StandInThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.waiting import WaitUntil
    from worker.standin.client import StandInClient

# A shared machine is slow at times, which says nothing about the property: no deadline per example.
# In CI the examples are the same in every run, so that red means that this change broke something.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background with SIGINT ignored, and what is ignored is inherited by every
    # process that is started here: Ctrl-C would do nothing there, and the tests of Ctrl-C could not say why.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # The same under nohup. What is caught is inherited by nobody, and this run still outlives its terminal.
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer has configured for a real worker must reach no test."""
    for name in [name for name in os.environ if name.startswith("CONTACT_SYNC_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """A real Redis for the whole run. That it cannot start is a failure: nothing is skipped for want of it."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(scope="session")
def redis_version(redis_server: EmbeddedRedis) -> tuple[int, ...]:
    """Which Redis that is, or which one Valkey says it equals."""
    with redis.Redis.from_url(redis_server.url) as client:
        found: Any = client.info("server")
    return tuple(int(part) for part in str(found["redis_version"]).split(".")[:2])


@pytest.fixture(autouse=True)
def _new_enough_redis(request: pytest.FixtureRequest) -> None:
    """Skips what the machine's Redis is too old for."""
    mark = request.node.get_closest_marker("redis")
    if mark is not None and request.getfixturevalue("redis_version") < mark.args:
        pytest.skip(f"the Redis of this machine is older than {'.'.join(map(str, mark.args))}")


@pytest.fixture
def redis_client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A client of that Redis, which is empty when the test begins."""
    with redis.Redis.from_url(
        redis_server.url, retry=Retry(NoBackoff(), 0), socket_timeout=10, socket_connect_timeout=10
    ) as client:
        client.flushall()
        yield client


@pytest.fixture
def namespace() -> str:
    """A key prefix that no other test uses, so that what one leaves running cannot disturb the next."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def running_stand_in() -> Iterator[StandInClient]:
    """One stand-in for the whole run."""
    with StandInThread() as stand_in:
        yield stand_in


@pytest.fixture
def stand_in(running_stand_in: StandInClient) -> StandInClient:
    """That stand-in, with nothing in it when the test begins."""
    running_stand_in.reset()
    return running_stand_in


@pytest.fixture
def fleet(redis_server: EmbeddedRedis, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    """Workers of a namespace that is this test's own."""
    with Fleet(redis_server.url, namespace, stand_in) as made:
        yield made


@pytest.fixture
def process_fleet(redis_server: EmbeddedRedis, namespace: str, stand_in: StandInClient) -> Iterator[Fleet]:
    """A fleet without a worker yet, for tests that start and kill their own."""
    with Fleet(redis_server.url, namespace, stand_in, broker_url=broker_url(redis_server.url), **PROCESS) as made:
        yield made


@pytest.fixture
def wait_until() -> WaitUntil:
    """Waits for a condition with a deadline: ``wait_until(lambda: …, seconds=10, what="the log is empty")``."""
    return wait_until_true


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end, one line for each tool, what was skipped because this machine lacks it."""
    counted = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    for reason, times in sorted(counted.items()):
        terminalreporter.write_line(f"not tried here: {times} test{'s' * (times > 1)}: {reason}", yellow=True)
