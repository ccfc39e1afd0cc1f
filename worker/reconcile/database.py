"""Streams the rows of a query as a source, from any database that SQLAlchemy has a driver for."""

from __future__ import annotations

from contextlib import ExitStack
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID

from worker.config.database import NoDatabase, open_database, why
from worker.core.numbers import many
from worker.reconcile.rows import SourceBroken, row_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.reconcile.rows import Reject, Row

_AT_ONCE: Final = 1_000
_NEEDED: Final = ("owner", "contact")
_KNOWN: Final = (*_NEEDED, "op")


class QuerySource:
    """A query with the columns owner, contact and an optional op. Use it as a context manager and iterate it once.

    Args:
        url: SQLAlchemy URL of the database.
        query: SQL query.
        trim: remove blanks around ids and ops, such as the padding of a CHAR column.

    Raises:
        SourceBroken: the database does not answer, or refuses. The message is one line without password or values.
    """

    total: int | None = None
    written_at: float | None = None

    def __init__(self, url: str, query: str, *, trim: bool = False) -> None:
        self._url, self._query, self._trim = url, query, trim
        self._open = ExitStack()
        self.name = ""
        self.done = 0

    def __enter__(self) -> Self:
        try:
            query = self._query.encode()
        except UnicodeEncodeError:
            raise SourceBroken("--query must be UTF-8") from None
        try:
            engine = open_database(self._url, "SOURCE with --query")
        except NoDatabase as error:
            raise SourceBroken(str(error)) from None
        self._open.callback(engine.dispose)
        shown = engine.url.render_as_string(hide_password=True)
        self.name = f"{shown} {sha256(query).hexdigest()[:12]}"
        self._engine = engine
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def is_file(self, path: Path) -> bool:
        """Tells if this is the file of the database, such as one of SQLite: what is written there would replace it."""
        from sqlalchemy.engine import make_url  # noqa: PLC0415 - an extra
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415 - the same

        try:
            database = make_url(self._url).database
            return bool(database) and Path(database or "").samefile(path)
        except (ArgumentError, OSError):
            return False

    def __iter__(self) -> Iterator[Row | Reject]:
        from sqlalchemy import text  # noqa: PLC0415 - an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - the same

        try:
            connection = self._open.enter_context(self._engine.connect())
            found = connection.execution_options(stream_results=True, yield_per=_AT_ONCE).execute(text(self._query))
            if not found.returns_rows:
                raise SourceBroken("the query returns no rows: it must select owner and contact")
            names = [name.lower() for name in found.keys()]  # noqa: SIM118 - not a mapping
            twice = [name for name in _KNOWN if names.count(name) > 1]
            if twice:
                raise SourceBroken(f"the query returns the column {twice[0]} twice: either value could be meant")
            columns = {name: i for i, name in enumerate(names)}
            missing = [name for name in _NEEDED if name not in columns]
            if missing:
                raise SourceBroken(f"the query must return the columns owner and contact: it has no {missing[0]}")
            for number, row in enumerate(found, 1):
                self.done = number
                yield row_of(
                    number, {name: _text(row[columns[name]]) for name in _KNOWN if name in columns}, trim=self._trim
                )
        except SQLAlchemyError as error:
            raise SourceBroken(f"the query failed after {many(self.done, 'row')}: {why(error)}") from None


def _text(value: Any) -> Any:
    """Returns a whole number or a UUID as text, because ids are text everywhere else; other values unchanged."""
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))  # a NUMERIC column that holds whole numbers, with or without decimals
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number or isinstance(value, UUID) else value
