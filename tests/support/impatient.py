"""The worker's Celery app with a watchdog of little patience, for processes under test."""

from __future__ import annotations

import os

from worker.celery import app
from worker.process.watchdog import ConsumerWatchdog


class ImpatientWatchdog(ConsumerWatchdog):
    """Waits far shorter than anything else here takes to end or to restart."""

    check_seconds = 0.25
    stalled_seconds = float(os.environ.get("STALLED_SECONDS", "3"))
    reconnect_seconds = 12.0


app.steps["worker"].discard(ConsumerWatchdog)
app.steps["worker"].add(ImpatientWatchdog)
