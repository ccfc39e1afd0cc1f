"""A request goes out only under leases that outlive its deadline, however long its process was held up on the way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support.partition_zero import partitions_of
from tests.support.sync_request import key
from worker.core.batch import Batch
from worker.core.round import Round
from worker.delivery.endpoint import Endpoint
from worker.delivery.request import RequestSender

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from worker.core.gate import Permit

ONE = Batch(chosen=(frozenset({b"1\x1f2"}),), repairs=(frozenset(),), upserts=(b"1\x1f2",), deletes=())


def test_one_who_was_held_up_behind_the_gate_sends_nothing(fleet: Fleet) -> None:
    settings = fleet.settings()
    late = 0.0

    def server_key(_permit: Permit) -> str:
        nonlocal late
        # The last thing before it sends takes so long that its lease ends before the request's deadline.
        late = lease.until - time.monotonic() - settings.request_timeout_seconds + 0.01
        return key()["Server-Key"]

    place = fleet.first.gate.ask(15.0)
    looked = time.monotonic()
    (lease,) = partitions_of(fleet, fleet.first.namespace.client).claim([fleet.partition("1")])
    requests = RequestSender(
        settings,
        gate=fleet.first.gate,
        endpoint=Endpoint(settings.endpoint_url, settings.request_timeout_seconds, time.monotonic),
        server_key=server_key,
        monotonic=lambda: time.monotonic() + late,
        draw=lambda: 0.5,
        parks=lambda: True,
    )
    sent = requests.send(Round(place.gate, looked, time.monotonic(), [lease], 500, place.token), ONE)
    assert not sent.posted
    assert sent.outcome is None
    assert fleet.stand_in.requests() == []
