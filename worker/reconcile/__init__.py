"""Reconciliation: brings the endpoint in line with a source of truth."""

from __future__ import annotations

from worker.reconcile.plan import Limits, TooManyDeletes
from worker.reconcile.rows import Reject, SourceBroken
from worker.reconcile.run import NotResumable, Options, reconcile

__all__ = ["Limits", "NotResumable", "Options", "Reject", "SourceBroken", "TooManyDeletes", "reconcile"]
