"""The Celery app, as `celery -A worker` finds it."""

from worker.process.app import create_app

app = create_app()
