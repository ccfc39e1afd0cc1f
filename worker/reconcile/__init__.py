"""Reconciliation: brings the endpoint in line with a source of truth (docs/how-to/reconcile.md, "From Python")."""

from __future__ import annotations

from worker.config.settings import load_worker_settings
from worker.reconcile.plan import Limits, TooManyDeletes
from worker.reconcile.rows import Reject, SourceBroken
from worker.reconcile.run import NotResumable, Options, reconcile
from worker.store.client import connect

__all__ = [
    "Limits",
    "NotResumable",
    "Options",
    "Reject",
    "SourceBroken",
    "TooManyDeletes",
    "connect",
    "load_worker_settings",
    "reconcile",
]
