"""The pytest plugin of contact-sync: fixtures for apps that produce contact changes (docs/testing.md).

pytest loads it in every run of an environment that has contact-sync, so it imports nothing but pytest by itself: what a
fixture needs is loaded when a test asks for that fixture. It is installed outside of the packages for the same reason,
and so that an app with a package `worker` of its own can use what needs none of ours.
"""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from producers.testing import ContactChanges
    from worker.local.redis import EmbeddedRedis
    from worker.standin.client import StandInClient
    from worker.testing.kit import WaitUntilSynced


@pytest.fixture
def contact_changes() -> Iterator[ContactChanges]:
    """What the app under test emitted, in order; no Redis is needed, and none is reached.

    Every producer is recorded, whenever and wherever it was made. Needs the extra `testing`.
    """
    from producers.testing import ContactChanges  # noqa: PLC0415 - for those who ask alone

    with ContactChanges() as changes:
        yield changes


@pytest.fixture
def contact_sync_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInClient]:
    """A stand-in for the platform's endpoint, in this process: it takes faults, and says what reached it.

    The settings in the environment name it, so that workers that the test starts deliver to it.
    """
    from worker.standin.server import StandInThread  # noqa: PLC0415 - for those who ask alone
    from worker.standin.settings import DEFAULT_KEY  # noqa: PLC0415

    with StandInThread() as endpoint:
        monkeypatch.setenv("CONTACT_SYNC_ENDPOINT_URL", endpoint.url)
        for name in ("CONTACT_SYNC_SERVER_KEY_ID", "CONTACT_SYNC_SERVER_KEY_SECRET"):
            monkeypatch.delenv(f"{name}_FILE", raising=False)
            monkeypatch.setenv(name, DEFAULT_KEY)
        yield endpoint


@pytest.fixture(scope="session")
def contact_sync_redis() -> Iterator[EmbeddedRedis]:
    """A Redis of the run's own: `redis-server` of this machine, or that of the extra `embedded`."""
    from worker.local.redis import EmbeddedRedis  # noqa: PLC0415 - for those who ask alone

    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def wait_until_synced(
    request: pytest.FixtureRequest,
    contact_sync_redis: EmbeddedRedis,
    contact_sync_endpoint: StandInClient,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WaitUntilSynced]:
    """Delivers what the app emitted to `contact_sync_endpoint`, until one pair is settled there.

    A real Redis and a real worker are in between: the environment names that Redis, in a namespace of the test's own,
    to every producer that is made from now on.
    """
    if "contact_changes" in request.fixturenames:
        pytest.fail("contact_changes keeps changes from the log, and wait_until_synced waits there: take one of them")
    from worker.testing.kit import WaitUntilSynced  # noqa: PLC0415 - for those who ask alone

    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", contact_sync_redis.url)
    monkeypatch.setenv("CONTACT_SYNC_NAMESPACE", f"test-{uuid.uuid4().hex[:12]}")
    monkeypatch.delenv("CONTACT_SYNC_PARTITIONS", raising=False)
    with WaitUntilSynced(contact_sync_endpoint) as wait:
        yield wait


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """Says of emitted changes that are not the expected ones which are missing and which are too many."""
    testing = sys.modules.get("producers.testing")
    if testing is None or op != "==":
        return None
    changes, expected = (right, left) if isinstance(right, testing.ContactChanges) else (left, right)
    if not isinstance(changes, testing.ContactChanges):
        return None
    explained: list[str] = changes.compared_with(expected)
    return explained
