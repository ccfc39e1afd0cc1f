"""`contact-sync pause` and `resume`: no request goes out in between, and nothing is lost or forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.commands import run, told
from tests.support.fleet import Fleet, T
from worker.core.backlog import ABSORB_ENTRIES, PartitionBacklog
from worker.core.linger import Linger
from worker.store.gate import Gate

if TYPE_CHECKING:
    from tests.support.waiting import WaitUntil


def test_nothing_is_sent_until_deliveries_are_resumed(fleet: Fleet) -> None:
    assert run(fleet, "pause").stdout.startswith("paused; requests in flight end within ")
    fleet.append("1", "2", "upsert", T)
    fleet.flush()
    assert fleet.requests() == []
    assert run(fleet, "resume").stdout.startswith("resumed; deliveries were paused since ")
    fleet.deliver()
    assert fleet.stand_in.contacts() == {("1", "2")}


def test_a_long_log_is_joined_meanwhile_as_in_an_outage(fleet: Fleet) -> None:
    run(fleet, "pause")
    fleet.append_many(("1", str(n % 7), "upsert", T + n) for n in range(ABSORB_ENTRIES))
    fleet.flush()
    assert (fleet.backlog(), len(fleet.pending())) == (0, 7)
    assert fleet.requests() == []
    run(fleet, "resume")
    fleet.deliver()
    assert len(fleet.stand_in.contacts()) == 7


def test_no_probe_and_no_report_of_a_request_lifts_it(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    gate = fleet.first.gate
    passed = gate.enter("one", 1.0)
    run(fleet, "pause")
    for what in ("confirmed", "retry", "hold"):
        gate.report(gate.snapshot().generation, what, reason="credentials")
        assert gate.snapshot().paused_ms
        assert not gate.enter("another", 1.0).go
    assert passed.go
    assert (gate.snapshot().state, gate.snapshot().reason) == ("held", "paused")


def test_the_gate_goes_on_from_the_state_beneath(fleet: Fleet) -> None:
    fleet.first.gate.report(0, "hold", delay_seconds=60.0, reason="credentials", error="HTTP 401")
    run(fleet, "pause")
    run(fleet, "resume")
    assert told(fleet, "status")["endpoint"].items() >= {"state": "held", "reason": "credentials"}.items()


def test_logs_that_full_dead_letters_block_are_left_alone_while_it_is_paused_too(fleet: Fleet) -> None:
    run(fleet, "pause")
    snapshot = Gate(fleet.namespace).snapshot()
    blocked = PartitionBacklog(0, oldest_ms=1, entries=5_000, full_until_ms=snapshot.now_ms + 60_000)
    assert blocked.due_ms(snapshot, Linger(0, 0), 500) == snapshot.now_ms + 60_000
    assert PartitionBacklog(0, oldest_ms=1, entries=5_000).due_ms(snapshot, Linger(0, 0), 500) == 0


def test_status_health_drain_and_explain_say_it_and_how_it_ends(fleet: Fleet) -> None:
    since = told(fleet, "pause")["since"]
    assert run(fleet, "drain").exit_code == 0  # nothing waits
    fleet.append("1", "2", "upsert", T, entry=f"{fleet.now_ms() - 3_600_000}-0")
    endpoint = told(fleet, "status")["endpoint"]
    assert endpoint.items() >= {"state": "held", "reason": "paused", "paused_since": since, "retry_at": None}.items()
    assert "to continue: contact-sync resume" in run(fleet, "status").stdout
    found = told(fleet, "health")
    assert (found["healthy"], found["reason"], found["outside"]) == (True, "paused", True)
    assert "contact-sync resume" in found["message"]
    drained = run(fleet, "drain")
    assert drained.exit_code == 1
    assert f"deliveries are paused since {since} (contact-sync resume)" in drained.stderr
    assert f"deliveries are paused since {since}" in run(fleet, "explain", "1", "2").stdout


def test_again_is_no_other_pause(fleet: Fleet) -> None:
    since = told(fleet, "pause")["since"]
    assert told(fleet, "pause") == {"paused": True, "since": since, "was_paused": True}
    assert told(fleet, "resume") == {"paused": False, "since": since, "was_paused": True}
    assert told(fleet, "resume") == {"paused": False, "since": None, "was_paused": False}
    assert run(fleet, "resume").stdout == "deliveries were not paused\n"


def test_a_worker_notices_the_end_soon(fleet: Fleet, wait_until: WaitUntil) -> None:
    run(fleet, "pause")
    assert 0 < fleet.first.gate.snapshot().wait_ms <= 1_000
    fleet.append("1", "2", "upsert", T)
    run(fleet, "resume")
    wait_until(lambda: fleet.flush() and not fleet.waits(), what="it is delivered")
