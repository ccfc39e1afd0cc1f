"""Delivery to an endpoint that limits requests: all arrives at nearly its own pace, and hardly a request is refused."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

LIMIT = 40.0
CHANGES = 400


@pytest.mark.parametrize("workers", [1, 3])
def test_an_endpoint_that_limits_gets_all_at_nearly_its_own_pace(fleet: Fleet, workers: int) -> None:
    fleet.stand_in.settings(rate_limit_per_second=LIMIT)
    fleet.change(batch_size=1)
    for i in range(CHANGES):
        fleet.append(str(i), "2", "upsert")
    begun = time.monotonic()
    runs = [fleet.worker().flusher.run for _ in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        while len(fleet.stand_in.contacts()) < CHANGES:
            assert time.monotonic() - begun < 4 * CHANGES / LIMIT, "it stands still"
            list(pool.map(lambda run: run(1.0), runs))
    statuses = fleet.stand_in.counts()["statuses"]
    assert statuses.get("429", 0) <= 0.05 * CHANGES
    assert time.monotonic() - begun < 2.5 * CHANGES / LIMIT
    # On a machine too busy to reach the limit, there is none to learn.
    assert bool(fleet.first.gate.snapshot().rate) == ("429" in statuses)
