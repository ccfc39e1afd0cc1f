"""Celery and the worker process: what starts, wakes, watches and stops the loop."""
