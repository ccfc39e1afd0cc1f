"""Delivery in tests of upstream apps (docs/tutorials/testing.md), and the stand-in for the endpoint.

The stand-in is described in docs/reference/stand-in.md.
"""

from __future__ import annotations

from worker.standin.client import StandInClient
from worker.standin.server import StandInThread
from worker.testing.kit import QUICK, ROUND_SECONDS, WaitUntilSynced

__all__ = ["QUICK", "ROUND_SECONDS", "StandInClient", "StandInThread", "WaitUntilSynced"]
