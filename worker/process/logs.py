"""Sets up the logs: one line an event, readable on a terminal, JSON elsewhere; Celery's own lines look the same.

WARNING: unexpected, but nothing is lost. ERROR: somebody must act. Ids and secrets are not logged at any level.
"""

from __future__ import annotations

import logging
import sys
import time
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATED_SECONDS: Final = 30.0
"""A line of Celery's is not repeated within this time."""


class FirstOfMany(logging.Filter):
    """Drops repeated lines of Celery's: while a broker takes no writes it logs the same line six times a second.

    Drops its tracebacks too: they are not about our code, and the line says what happened.
    """

    _LINES_MAX: Final = 1_000  # bounds the memory

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._shown: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is shown."""
        if not record.name.startswith(("celery.", "kombu.")) or record.levelno < logging.WARNING:
            return True
        if record.name.startswith("celery.worker.consumer"):
            record.exc_info = record.exc_text = None
            # Its further lines repeat the whole message, which may hold anything.
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        line, now = (record.name, record.getMessage()), self._monotonic()
        if now - self._shown.get(line, float("-inf")) < REPEATED_SECONDS:
            return False
        if len(self._shown) >= self._LINES_MAX:
            self._shown.clear()
        self._shown[line] = now
        return True


def set_up_logging(level: int | str = "INFO", file: str | None = None, *, colours: bool = True) -> logging.Logger:
    """Sends this project's and the standard library's logs to standard error, or to a file.

    Args:
        level: the lowest that is shown, as in Celery's `--loglevel`.
        file: as in Celery's `--logfile`; opened again if logrotate moved it away.
        colours: whether a terminal may show colours, as in Celery's `--no-color`.

    Returns:
        The root logger.

    Raises:
        OSError: the file cannot be opened.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    people = file is None and sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer(colors=colours) if people else structlog.processors.JSONRenderer()
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
    handler = WatchedFileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(FirstOfMany())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper() if isinstance(level, str) else level)
    if root.level > logging.DEBUG:
        # Hints come by the hundred and say nothing; the batches tell what a flush did.
        for name in ("celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    return root


def _rendering(renderer: Any) -> list[Any]:
    if isinstance(renderer, structlog.processors.JSONRenderer):
        return [structlog.processors.format_exc_info, renderer]
    return [renderer]
