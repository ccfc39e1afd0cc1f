"""Delivery in tests of upstream apps (docs/tutorials/testing.md)."""

from __future__ import annotations

from worker.testing.kit import QUICK, ROUND_SECONDS, WaitUntilSynced

__all__ = ["QUICK", "ROUND_SECONDS", "WaitUntilSynced"]
