"""Text in SQLite, which stores any bytes as text: only reading them tells what is not UTF-8."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reading_any_text(connection: Any) -> Iterator[None]:
    """Reads text that is not UTF-8 as what no id may hold: so its row is refused, and does not stop the others.

    Args:
        connection: the database driver's own; of any but SQLite's nothing changes.
    """
    if not hasattr(connection, "text_factory"):
        yield
        return
    before, connection.text_factory = connection.text_factory, any_text
    try:
        yield
    finally:
        connection.text_factory = before


def any_text(raw: bytes) -> str:
    """The text of a column, in which each byte that is not UTF-8 is a character that no id may hold."""
    return raw.decode("utf-8", "surrogateescape")
