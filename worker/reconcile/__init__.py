"""Reconciliation: brings the endpoint to what a source of truth says."""

from __future__ import annotations

from worker.reconcile.plan import Limits, TooManyDeletes
from worker.reconcile.rows import Reject, SourceBroken
from worker.reconcile.run import NotResumable, Options, reconcile

__all__ = ["Limits", "NotResumable", "Options", "Reject", "SourceBroken", "TooManyDeletes", "reconcile"]
