"""Empties the message of each hint before Celery reads it: only the task's name and the message's id remain.

Celery trusts its messages. A body that is not a list of three ends the worker that receives it, and then the next
worker, because the message is put back.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from celery.worker import strategy

if TYPE_CHECKING:
    from collections.abc import Callable

FLUSH_TASK: Final = "contact_sync.flush"
"""Name of the one task, which every hint asks for."""

_NOTHING: Final = b"[[], {}, {}]"


def hint_strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's default strategy, applied to an emptied message (`Task.Strategy`)."""
    take: Callable[..., Any] = strategy.default(task, app, consumer, **options)

    def taken(message: Any, _body: Any, *args: Any, **kwargs: Any) -> Any:
        given = message.headers.get("id")
        name = given if isinstance(given, str) else str(uuid.uuid4())
        message.headers = {"lang": "py", "task": task.name, "id": name, "root_id": name}
        message.body, message.content_type, message.content_encoding = _NOTHING, "application/json", "utf-8"
        message._decoded_cache, message.errors = None, None  # noqa: SLF001 - what Celery has decoded so far
        return take(message, None, *args, **kwargs)

    return taken
