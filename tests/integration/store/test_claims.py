"""Which partitions a run claims, and how often it scans for them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from structlog import get_logger

from worker.core.round import Round
from worker.core.suppression import NOBODY
from worker.delivery.claims import SCAN_SECONDS, SCAN_SHARE, Claims, FlushRun, ScanTurn
from worker.store.cluster_backlog import scanner_of
from worker.store.gate import Gate
from worker.store.partitions import Partitions

if TYPE_CHECKING:
    from tests.support.fleet import Fleet
    from worker.core.backlog import Survey
    from worker.store.backlog import BacklogScanner


class Counted:
    """A scanner that counts its scans."""

    def __init__(self, scanner: BacklogScanner, takes_seconds: float) -> None:
        self.scans = 0
        self.ahead = 0.0
        self.meanwhile: threading.Thread | None = None
        self.patience: float | None = None
        self._scanner = scanner
        self._takes = takes_seconds

    def scan(self) -> Survey:
        self.scans += 1
        self.ahead += self._takes
        if self.scans == 1 and self.meanwhile is not None:
            self.meanwhile.start()
            self.meanwhile.join(self.patience)
        return self._scanner.scan()

    def monotonic(self) -> float:
        """A clock on which each scan takes its time."""
        return time.monotonic() + self.ahead


def claims_of(fleet: Fleet, scan_seconds: float = 0.0) -> tuple[Claims, Counted]:
    """Those of a process of its own; no chance decides which partition goes first."""
    namespace, settings = fleet.namespace, fleet.settings()
    scanner = Counted(scanner_of(namespace), scan_seconds)
    claims = Claims(
        settings,
        partitions=Partitions.of(namespace, settings),
        scanner=scanner,  # type: ignore[arg-type] # it scans as the scanner does
        scan_turn=ScanTurn().taken,
        gate=Gate(namespace),
        monotonic=scanner.monotonic,
        draw=lambda: 0.0,
        suppressed=lambda _state: NOBODY,
        log=get_logger(),
    )
    return claims, scanner


def claimed(claims: Claims) -> set[int]:
    found = claims.claim(FlushRun())
    assert isinstance(found, Round)
    return {each.partition for each in found.leases}


def test_what_others_took_since_the_scan_is_replaced_by_what_it_found_besides(fleet: Fleet) -> None:
    fleet.change(partitions=64, batch_size=4, in_flight=16)
    fleet.append_many((str(owner), "2", "upsert", None) for owner in range(2_000))
    ours, scanner = claims_of(fleet)
    others, _ = claims_of(fleet)
    first = claimed(ours)
    theirs = claimed(others)
    second = claimed(ours)
    assert second
    assert not second & (first | theirs)
    assert scanner.scans == 1


def test_a_scan_that_takes_long_is_used_for_longer(fleet: Fleet) -> None:
    fleet.change(partitions=64, batch_size=4, in_flight=16, lease_seconds=12.0)
    fleet.append_many((str(owner), "2", "upsert", None) for owner in range(2_000))
    claims, scanner = claims_of(fleet, scan_seconds=2 * SCAN_SECONDS)
    claimed(claims)
    scanner.ahead += SCAN_SECONDS
    claimed(claims)
    assert scanner.scans == 1
    scanner.ahead += SCAN_SHARE * 2 * SCAN_SECONDS
    claimed(claims)
    assert scanner.scans == 2


def both_claimed(fleet: Fleet, patience: float | None) -> tuple[set[int], set[int], int]:
    """What two runs of a process claim, the second of which begins within the first one's scan; and how many scans."""
    fleet.change(partitions=64, batch_size=4, in_flight=16)
    fleet.append_many((str(owner), "2", "upsert", None) for owner in range(2_000))
    claims, scanner = claims_of(fleet)
    theirs: list[set[int]] = []
    scanner.meanwhile, scanner.patience = threading.Thread(target=lambda: theirs.append(claimed(claims))), patience
    ours = claimed(claims)
    scanner.meanwhile.join()
    return ours, theirs[0], scanner.scans


def test_a_run_that_wants_to_scan_while_another_does_takes_what_that_one_found(fleet: Fleet) -> None:
    ours, theirs, scans = both_claimed(fleet, patience=0.3)
    assert not ours & theirs
    assert scans == 1


def test_a_run_does_not_wait_for_one_whose_scan_does_not_end(fleet: Fleet) -> None:
    _, theirs, scans = both_claimed(fleet, patience=None)
    assert theirs
    assert scans == 2


def test_a_rate_that_leaves_no_time_for_it_lets_no_request_scan_for_itself(fleet: Fleet) -> None:
    fleet.change(partitions=64, batch_size=4, in_flight=16, rate=1_000.0)
    fleet.append_many((str(owner), "2", "upsert", None) for owner in range(2_000))
    claims, scanner = claims_of(fleet)
    for _ in range(3):
        claimed(claims)
    assert scanner.scans == 1
