"""The pytest plugin of contact-sync: fixtures for apps that produce contact changes (docs/tutorials/testing.md).

pytest loads this module in every run in an environment with contact-sync. So it imports only pytest; what a fixture
needs is loaded when a test uses that fixture. For the same reason it is installed outside of the packages. Thus an app
with its own package `worker` can still use the fixtures that do not need ours.
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
    """The changes that the app under test emitted, in order. No Redis is needed or contacted.

    It records every producer, no matter when and where it was made. Needs the extra `testing`.
    """
    from producers.testing import ContactChanges  # noqa: PLC0415 - only if a test uses this fixture

    with ContactChanges() as changes:
        yield changes


@pytest.fixture
def contact_sync_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInClient]:
    """A stand-in for the platform's endpoint, in this process: it injects faults, and shows what it received.

    The environment names it, so that workers that the test starts deliver to it.
    """
    from worker.standin.server import StandInThread  # noqa: PLC0415 - only if a test uses this fixture
    from worker.standin.settings import DEFAULT_KEY  # noqa: PLC0415

    with StandInThread() as endpoint:
        monkeypatch.setenv("CONTACT_SYNC_ENDPOINT_URL", endpoint.url)
        for name in ("CONTACT_SYNC_SERVER_KEY_ID", "CONTACT_SYNC_SERVER_KEY_SECRET"):
            monkeypatch.delenv(f"{name}_FILE", raising=False)
            monkeypatch.setenv(name, DEFAULT_KEY)
        yield endpoint


@pytest.fixture(scope="session")
def contact_sync_redis() -> Iterator[EmbeddedRedis]:
    """A Redis server for this test run: `redis-server` on this machine, or that of the extra `embedded`."""
    from worker.local.redis import EmbeddedRedis  # noqa: PLC0415 - only if a test uses this fixture

    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
def wait_until_synced(
    request: pytest.FixtureRequest,
    contact_sync_redis: EmbeddedRedis,
    contact_sync_endpoint: StandInClient,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WaitUntilSynced]:
    """Delivers what the app emitted to `contact_sync_endpoint`, until no change of a pair waits.

    It uses a real Redis and a real worker: the environment names that Redis, with a namespace for this test, to every
    producer that is made from now on.
    """
    if "contact_changes" in request.fixturenames:
        pytest.fail("contact_changes keeps changes out of the log that wait_until_synced reads: use only one of them")
    from worker.testing.kit import WaitUntilSynced  # noqa: PLC0415 - only if a test uses this fixture

    monkeypatch.setenv("CONTACT_SYNC_REDIS_URL", contact_sync_redis.url)
    monkeypatch.setenv("CONTACT_SYNC_NAMESPACE", f"test-{uuid.uuid4().hex[:12]}")
    monkeypatch.delenv("CONTACT_SYNC_PARTITIONS", raising=False)
    with WaitUntilSynced(contact_sync_endpoint) as wait:
        yield wait


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """Explains a failed comparison of emitted changes: which are missing, and which are unexpected."""
    testing = sys.modules.get("producers.testing")
    if testing is None or op != "==":
        return None
    changes, expected = (right, left) if isinstance(right, testing.ContactChanges) else (left, right)
    if not isinstance(changes, testing.ContactChanges):
        return None
    explained: list[str] = changes.compared_with(expected)
    return explained
