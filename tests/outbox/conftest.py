"""Databases that a test has to itself, SQLite, PostgreSQL and MariaDB, and a log of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from producers import ContactProducer, ProducerSettings
from producers.outbox import create_tables
from tests.outbox import postgres
from tests.support import mariadb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis
    from sqlalchemy import Engine

    from worker.local.redis import EmbeddedRedis

PARTITIONS = 8


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    with mariadb.mariadb() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/app.db"
        return
    server, kind = {"postgresql": ("postgres_server", postgres), "mariadb": ("mariadb_server", mariadb)}[request.param]
    with kind.own_database(request.getfixturevalue(server)) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """That database, with an outbox and a table of the app's own."""
    engine = sqlalchemy.create_engine(database_url)
    create_tables(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE contacts (owner VARCHAR(20), contact VARCHAR(20))")
    yield engine
    engine.dispose()


class Log:
    """The event log of one namespace."""

    def __init__(self, client: redis.Redis, url: str, namespace: str) -> None:
        self.client = client
        self.settings = ProducerSettings(redis_url=url, namespace=namespace, partitions=PARTITIONS)

    def producer(self, **overrides: object) -> ContactProducer:
        return ContactProducer(settings=self.settings.model_copy(update=overrides))

    def environment(self) -> dict[str, str]:
        return {
            "CONTACT_SYNC_REDIS_URL": self.settings.redis_url,
            "CONTACT_SYNC_NAMESPACE": self.settings.namespace,
            "CONTACT_SYNC_PARTITIONS": str(PARTITIONS),
        }

    def entries(self) -> list[dict[str, str]]:
        """Each entry's fields, those of a partition in its order."""
        found = []
        for partition in range(PARTITIONS):
            raw: Any = self.client.xrange(self.settings.keys.events(partition))
            found += [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in raw]
        return found

    def bulk_contacts(self) -> list[str]:
        """The contact of each entry in the bulk lane."""
        found = []
        for partition in range(PARTITIONS):
            raw: Any = self.client.xrange(self.settings.keys.bulk(partition))
            found += [fields[b"contact"].decode() for _, fields in raw]
        return found

    def said(self) -> list[tuple[str, str, str, int]]:
        return [(each["op"], each["owner"], each["contact"], int(each["at"])) for each in self.entries()]


@pytest.fixture
def log(redis_server: EmbeddedRedis, redis_client: redis.Redis, namespace: str) -> Log:
    return Log(redis_client, redis_server.url, namespace)
