"""A ledger that remembers for good is never rotated, however far the log moves on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fleet import T

if TYPE_CHECKING:
    from tests.support.fleet import Fleet

TEN_YEARS_MS = 315_360_000_000


@pytest.mark.parametrize(("ledger_seconds", "forgets"), [("forever", False), (3600.0, True)])
def test_only_a_ledger_for_good_outlasts_the_years(fleet: Fleet, ledger_seconds: object, *, forgets: bool) -> None:
    fleet.change(ledger_seconds=ledger_seconds, batch_size=1)  # a full batch is due at once, whatever its entry's time
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    for years in (1, 2, 3):
        fleet.append("1", "3", "upsert", entry=f"{fleet.now_ms() + years * TEN_YEARS_MS}-1")
        fleet.deliver()
    assert (("1", "2") not in fleet.remembered()) is forgets
