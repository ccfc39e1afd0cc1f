"""Streams the rows of a query as a source, from any database that SQLAlchemy has a driver for."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Self

from worker.config.database import NoDatabase, open_database, why
from worker.reconcile.rows import SourceBroken, row_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.reconcile.rows import Reject, Row

_AT_ONCE: Final = 1_000
_NEEDED: Final = ("owner", "contact")


class QuerySource:
    """A query with the columns owner, contact and an optional op. Use it as a context manager and iterate it once.

    Args:
        url: SQLAlchemy URL of the database.
        query: SQL query.

    Raises:
        SourceBroken: the database does not answer, or refuses. The message is one line without password or values.
    """

    total: int | None = None
    written_at: float | None = None

    def __init__(self, url: str, query: str) -> None:
        self._url, self._query = url, query
        self._open = ExitStack()
        self.name = ""
        self.done = 0

    def __enter__(self) -> Self:
        try:
            engine = open_database(self._url, "SOURCE with --query")
        except NoDatabase as error:
            raise SourceBroken(str(error)) from None
        self._open.callback(engine.dispose)
        shown = engine.url.render_as_string(hide_password=True)
        self.name = f"{shown} {sha256(self._query.encode()).hexdigest()[:12]}"
        self._engine = engine
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __iter__(self) -> Iterator[Row | Reject]:
        from sqlalchemy import text  # noqa: PLC0415 - an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - the same

        try:
            connection = self._open.enter_context(self._engine.connect())
            found = connection.execution_options(stream_results=True, yield_per=_AT_ONCE).execute(text(self._query))
            if not found.returns_rows:
                raise SourceBroken("the query returns no rows: it must select owner and contact")
            columns = {name.lower(): name for name in found.keys()}  # noqa: SIM118 - not a mapping
            missing = [name for name in _NEEDED if name not in columns]
            if missing:
                raise SourceBroken(f"the query must return the columns owner and contact: it has no {missing[0]}")
            for number, row in enumerate(found.mappings(), 1):
                self.done = number
                yield row_of(
                    number, {name: _text(row[columns[name]]) for name in ("owner", "contact", "op") if name in columns}
                )
        except SQLAlchemyError as error:
            raise SourceBroken(f"the query failed after {self.done:,} rows: {why(error)}") from None


def _text(value: Any) -> Any:
    """Returns an integer or a UUID as text, because ids are text everywhere else; other values unchanged."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number or type(value).__name__ == "UUID" else value
