"""Logs: one line an event, for people on a terminal, JSON elsewhere; Celery's own lines in the same form.

WARNING is unexpected but nothing is lost, ERROR needs somebody. Ids and secrets are not logged at any level.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def set_up_logging(level: int | str = "INFO") -> None:
    """Sends this project's and the standard library's logs to standard error.

    Args:
        level: the lowest that is shown, as Celery's `--loglevel` says it.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(renderer)],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper() if isinstance(level, str) else level)
    if root.level > logging.DEBUG:
        # Hints come by the hundred and mean nothing; what a flush did is said by its batches.
        for name in ("celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _rendering(renderer: Any) -> list[Any]:
    if isinstance(renderer, structlog.processors.JSONRenderer):
        return [structlog.processors.format_exc_info, renderer]
    return [renderer]
