"""The times that the ticker, the flush task and those who watch over them must agree on (seconds)."""

from __future__ import annotations

from typing import Final

TICKER_LEASE_SECONDS: Final = 4.0
"""How long the fleet has no ticker after the process that ran it died."""

TICKER_IDLE_SECONDS: Final = 1.0
"""Longest wait for a first entry; then the ticker looks for what nobody announces, such as an expired lease."""

TICKER_STANDBY_SECONDS: Final = 2.0
"""How often the other processes ask whether the ticker's lease is free."""

FLUSH_BUDGET_SECONDS: Final = 5.0
"""Longest that one flush task goes on. With a request's time it is below any stop grace: children see no SIGTERM."""
