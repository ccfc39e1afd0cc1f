"""A real MariaDB for the tests, where its server is: on PATH, or where `make mariadb` puts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import sqlalchemy

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

UNPACKED: Final = Path(__file__).parents[2] / ".venv" / "mariadb"
_SYSTEM_TABLES: Final = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")


@contextmanager
def mariadb() -> Iterator[str]:
    """A server that nobody else uses; gives its URL as SQLAlchemy has them. Skips the test if there is no server."""
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path=UNPACKED / "usr" / "sbin")
    if found is None:
        pytest.skip("no MariaDB on this machine: make mariadb brings it, from Debian's packages")
    binary = Path(found)
    libraries = [each for pattern in ("lib/*-linux-gnu", "usr/lib/*-linux-gnu") for each in UNPACKED.glob(pattern)]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    shared = binary.parents[1] / "share" / "mysql"
    with tempfile.TemporaryDirectory(prefix="cs-my-") as directory:
        data, socket, log = Path(directory, "data"), Path(directory, "socket"), Path(directory, "log")
        data.mkdir()
        options = [found, "--no-defaults", f"--datadir={data}", f"--lc-messages-dir={shared}"]
        options += ["--user=root"] if os.geteuid() == 0 else []
        tables = "\n".join((shared / name).read_text(encoding="utf-8") for name in _SYSTEM_TABLES)
        bootstrap = subprocess.run(
            [*options, "--bootstrap"],
            input=f"CREATE DATABASE mysql;\nUSE mysql;\n{tables}",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert bootstrap.returncode == 0, bootstrap.stderr[-2000:]
        with (
            log.open("wb") as said,
            subprocess.Popen(
                # Whoever reaches the socket's directory may do all: the tests alone.
                [*options, f"--socket={socket}", "--skip-networking", "--skip-grant-tables"],
                env=environment,
                stdout=said,
                stderr=said,
            ) as server,
        ):
            try:
                wait_until(
                    lambda: socket.exists() or server.poll() is not None, seconds=60, what="MariaDB takes connections"
                )
                assert server.poll() is None, log.read_text()[-2000:]
                yield f"mysql+pymysql://root@/mysql?unix_socket={socket}"
            finally:
                server.terminate()


@contextmanager
def own_database(server_url: str) -> Iterator[str]:
    """An empty database of that server, whose default is one that holds no Chinese."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET latin1")
    try:
        yield server_url.replace("/mysql?", f"/{name}?")
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
        engine.dispose()
