"""Where the log lives in a soak."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.soak.homes import HOMES, On
from tests.support.waiting import wait_until
from worker.store.client import connect


@pytest.mark.timeout(120)
@pytest.mark.parametrize("on", ["redis", "sentinel", "cluster"])
def test_the_broker_is_flushed_and_the_log_stays(on: On) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cs-", ignore_cleanup_errors=True) as directory,
        HOMES[on](Path(directory)) as home,
        connect(home.observer_url) as client,
    ):
        wait_until(home.whole, seconds=60, what="the servers find each other")
        client.set("kept", "1")
        home.flush_broker()
        assert client.get("kept") == b"1"
