"""Reconciliation: brings the endpoint to what a source of truth says."""
