"""The log that a worker writes events to, as the rooms below the process see it."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """Takes an event's name, and fields without ids or secrets."""

    def info(self, event: str, **fields: Any) -> Any:
        """Everything went as it should."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Something unexpected happened; nothing is lost."""

    def error(self, event: str, **fields: Any) -> Any:
        """Somebody must act."""
