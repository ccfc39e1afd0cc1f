"""The worker's Celery app with a hearing that loses its patience soon, for processes under test."""

from __future__ import annotations

from worker.celery import app
from worker.process.watchdog import ConsumerWatchdog


class ImpatientStep(ConsumerWatchdog):
    """Far shorter than what it takes to end or to restart anything else here."""

    listen_seconds = 0.25
    deaf_seconds = 3.0
    reconnect_seconds = 12.0


app.steps["worker"].discard(ConsumerWatchdog)
app.steps["worker"].add(ImpatientStep)
