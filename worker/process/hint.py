"""A hint says nothing but that it is there: whatever its message carries is taken away before Celery reads it.

Celery trusts its messages. One whose body is no list of three ends the worker that takes it, and is put back for the
next; so nothing of a message reaches Celery but its name and its id.
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
    """Celery's own way of taking a message, for a message that was emptied (`Task.Strategy`)."""
    take: Callable[..., Any] = strategy.default(task, app, consumer, **options)

    def taken(message: Any, _body: Any, *args: Any, **kwargs: Any) -> Any:
        given = message.headers.get("id")
        name = given if isinstance(given, str) else str(uuid.uuid4())
        message.headers = {"lang": "py", "task": task.name, "id": name, "root_id": name}
        message.body, message.content_type, message.content_encoding = _NOTHING, "application/json", "utf-8"
        message._decoded_cache, message.errors = None, None  # noqa: SLF001 - what was read of it before
        return take(message, None, *args, **kwargs)

    return taken
