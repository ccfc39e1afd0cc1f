"""The relay: what was committed reaches the log, in order per owner, whoever else relays and whatever is away."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
import redis
import sqlalchemy
from sqlalchemy import insert
from sqlalchemy.orm import Session

from producers import ContactProducer, PartitionsMismatch, ProducerSettings
from producers.contract.change import partition_of
from producers.outbox import NoOutbox, Outbox, Relay, Relayed, create_tables
from producers.outbox.tables import CHANGES, LANE_LOCKS
from producers.relay.lane import lane_of
from producers.send import pressure
from tests.outbox.conftest import PARTITIONS, Log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

T = 1_795_460_847_757
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture
def relay(engine: Engine, log: Log) -> Iterator[Relay]:
    with log.producer() as producer:
        yield Relay(engine, producer)


def record(engine: Engine, *said: tuple[str, str, str, int]) -> None:
    with Session(engine) as session, session.begin():
        Outbox().record(
            session, [{"op": op, "owner": owner, "contact": contact, "at": at} for op, owner, contact, at in said]
        )


def test_what_was_committed_is_forwarded_as_recorded_and_leaves_the_outbox(
    engine: Engine, log: Log, relay: Relay
) -> None:
    with Session(engine) as session, session.begin():
        Outbox(source="crm").delete(session, "界", "9", at=T, traceparent=TRACE)
    assert relay.waiting() == (1, T, 0)
    assert relay.run_once() == Relayed(1, 0)
    assert log.entries() == [
        {"owner": "界", "contact": "9", "op": "delete", "at": str(T), "source": "crm", "traceparent": TRACE}
    ]
    assert relay.waiting() == (0, None, 0)
    assert relay.run_once() == Relayed(0, 0)


def test_more_than_a_batch_in_many_lanes_goes_in_order(engine: Engine, log: Log, relay: Relay) -> None:
    said = [(("upsert", "delete")[n % 2], str(n % 5), "9", T + n) for n in range(6_000)]
    record(engine, *said)
    assert relay.run_once(batches=2).forwarded == 1_000
    assert relay.run_once() == Relayed(5_000, 0)
    for owner in map(str, range(5)):
        assert [each for each in log.said() if each[1] == owner] == [each for each in said if each[1] == owner]


def test_each_lane_comes_once_before_any_comes_twice(engine: Engine, log: Log, relay: Relay) -> None:
    record(engine, *(("upsert", "1", str(n), T) for n in range(3_000)), ("delete", "2", "9", T))
    assert lane_of("1") != lane_of("2")
    relay.run_once(batches=2)
    assert ("delete", "2", "9", T) in log.said()


def test_bulk_rows_stay_while_redis_is_filling_up_and_live_ones_go(
    engine: Engine, log: Log, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = [{"op": "upsert", "owner": str(n % 5), "contact": f"b{n}", "at": T, "lane": "bulk"} for n in range(1_500)]
    with Session(engine) as session, session.begin():
        Outbox().record(session, [*bulk, {"op": "delete", "owner": "1", "contact": "live", "at": T}])
    monkeypatch.setattr(pressure, "BULK_WAITING_MAX", 1)
    monkeypatch.setattr(pressure, "POLL_SECONDS", 0.0)
    log.client.xadd(log.settings.keys.bulk(0), {"owner": "x"})
    done = relay.run_once()
    assert (done.forwarded, done.bulk_waits.partition(",")[0]) == (1, "1 bulk changes are waiting")
    assert log.said() == [("delete", "1", "live", T)]
    assert relay.run_once().forwarded == 0
    log.client.delete(log.settings.keys.bulk(0))
    monkeypatch.setattr(pressure, "BULK_WAITING_MAX", 1_000_000)
    assert relay.run_once() == Relayed(1_500, 0)
    assert sorted(log.bulk_contacts()) == sorted(f"b{n}" for n in range(1_500))


def test_rows_that_break_a_rule_are_kept_aside_and_hold_up_nothing(engine: Engine, log: Log, relay: Relay) -> None:
    fits = {"lane": lane_of("1"), "owner": "1", "contact": "9", "op": "upsert", "at": T}
    with engine.begin() as connection:  # somebody writes by hand
        for wrong in ({"op": "update"}, {"owner": ""}, {"contact": "a\x01"}, {"at": 17}, {"at": T * 2}, {}):
            connection.execute(insert(CHANGES), [fits | wrong])
    assert relay.run_once() == Relayed(1, 5)
    assert log.said() == [("upsert", "1", "9", T)]
    assert relay.waiting() == (0, None, 5)
    with engine.connect() as connection:
        reasons = connection.scalars(sqlalchemy.select(CHANGES.c.refused).order_by(CHANGES.c.id)).all()
    assert [str(reason).split()[0] for reason in reasons] == ["op", "owner", "contact", "at", "at"]
    assert relay.run_once() == Relayed(0, 0)


def test_rows_in_a_lane_that_no_relay_forwards_are_refused(engine: Engine, log: Log, relay: Relay) -> None:
    with engine.begin() as connection:  # somebody writes by hand
        for lane in (lane_of("1"), -1, 16):
            connection.execute(insert(CHANGES), {"lane": lane, "owner": "1", "contact": "9", "op": "upsert", "at": T})
    assert relay.run_once() == Relayed(1, 2)
    assert log.said() == [("upsert", "1", "9", T)]
    with engine.connect() as connection:
        reasons = connection.scalars(sqlalchemy.select(CHANGES.c.refused)).all()
    assert reasons == ["lane must be 0 to 15: the CRC-32 of owner, modulo 16"] * 2
    assert relay.run_once() == Relayed(0, 0)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_producer_whose_clock_has_gone_back_keeps_what_it_takes_for_the_future(
    engine: Engine,
    log: Log,
    relay: Relay,
    refuses: bool,  # noqa: FBT001 - a case
) -> None:
    now = int(time.time() * 1000)
    record(engine, ("upsert", "1", "9", T), ("delete", "1", "8", now), ("delete", "1", "7", T))
    keys = [log.settings.keys.events(p) for p in range(PARTITIONS)] if refuses else []
    for key in keys:
        log.client.set(key, "something else")
    with ContactProducer(settings=log.settings, clock=lambda: time.time() - 3_600) as behind:
        assert Relay(engine, behind).run_once().forwarded == (0 if refuses else 1)
    for key in keys:
        log.client.delete(key)
    assert relay.run_once() == Relayed(3 if refuses else 2, 0)
    assert sorted(log.said()) == sorted([("upsert", "1", "9", T), ("delete", "1", "8", now), ("delete", "1", "7", T)])


def test_a_redis_that_is_away_or_full_keeps_all_in_the_outbox(engine: Engine, log: Log, relay: Relay) -> None:
    record(engine, ("upsert", "1", "9", T), ("upsert", "2", "9", T))
    with ContactProducer(settings=ProducerSettings(redis_url="redis://127.0.0.1:1/0")) as nowhere:
        away = Relay(engine, nowhere).run_once()
    assert (away.forwarded, type(away.cause)) == (0, redis.ConnectionError)
    assert relay.run_once(batches=1).forwarded == 1
    log.client.config_set("maxmemory", 1)
    try:
        full = relay.run_once()
    finally:
        log.client.config_set("maxmemory", 0)
    assert full.forwarded == 0
    assert "maxmemory" in str(full.cause)
    assert relay.run_once() == Relayed(1, 0)


def test_a_key_of_the_wrong_type_holds_up_its_partition_alone(engine: Engine, log: Log, relay: Relay) -> None:
    other = next(str(n) for n in range(2, 99) if partition_of(str(n), PARTITIONS) != partition_of("1", PARTITIONS))
    wrong_type = log.settings.keys.events(partition_of("1", PARTITIONS))
    log.client.set(wrong_type, "none of ours")
    record(engine, ("upsert", "1", "8", T), ("delete", "1", "8", T + 1), ("upsert", other, "9", T))
    done = relay.run_once()
    assert done.forwarded == 1
    assert "WRONGTYPE" in str(done.cause)
    log.client.delete(wrong_type)
    assert relay.run_once().forwarded == 2
    assert [each for each in log.said() if each[1] == "1"] == [("upsert", "1", "8", T), ("delete", "1", "8", T + 1)]


def test_another_number_of_partitions_is_an_error_and_keeps_all(engine: Engine, log: Log) -> None:
    log.client.hset(log.settings.keys.config, mapping={"partitions": 4, "format": 1})
    record(engine, ("upsert", "1", "9", T))
    with log.producer() as producer:
        relay = Relay(engine, producer)
        with pytest.raises(PartitionsMismatch):
            relay.run_once()
    assert relay.waiting().changes == 1


def test_a_lane_that_another_relay_holds_is_passed_over_or_waited_for(
    engine: Engine, database_url: str, log: Log, relay: Relay
) -> None:
    """On PostgreSQL and MariaDB it is passed over; on SQLite everybody waits, and is told that the database is busy."""
    record(engine, ("upsert", "1", "9", T), ("upsert", "2", "9", T))
    own = sqlalchemy.create_engine(database_url)
    with own.begin() as connection:
        connection.execute(
            sqlalchemy.update(LANE_LOCKS).where(LANE_LOCKS.c.lane == lane_of("1")).values(lane=lane_of("1"))
        )
        if engine.dialect.name != "sqlite":
            assert relay.run_once() == Relayed(1, 0)
        else:
            busy = sqlalchemy.create_engine(database_url, connect_args={"timeout": 0.01})
            with log.producer() as producer, pytest.raises(sqlalchemy.exc.OperationalError, match="locked"):
                Relay(busy, producer).run_once()
            busy.dispose()
    own.dispose()
    relay.run_once()
    assert sorted(log.said()) == [("upsert", "1", "9", T), ("upsert", "2", "9", T)]


def test_several_relays_beside_a_writing_app_lose_and_reorder_nothing(engine: Engine, log: Log) -> None:
    count = 3_000
    over = threading.Event()
    failures: list[BaseException] = []

    def keep_relaying() -> None:
        try:
            with log.producer() as producer:
                relay = Relay(engine, producer)
                while not (over.is_set() and relay.waiting().changes == 0):
                    relay.run_once()
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    relays = [threading.Thread(target=keep_relaying) for _ in range(3)]
    for each in relays:
        each.start()
    for first in range(0, count, 100):
        record(engine, *(("upsert", str(n % 40), str(n % 3), T + n) for n in range(first, first + 100)))
    over.set()
    for each in relays:
        each.join(60)
    assert failures == []
    said = log.said()
    assert len(said) == count  # nobody was killed, so nothing came twice
    for owner in {each[1] for each in said}:
        times = [at for _, of, _, at in said if of == owner]
        assert times == sorted(times)


def test_each_change_takes_the_stream_of_its_lane(engine: Engine, log: Log, relay: Relay) -> None:
    with Session(engine) as session, session.begin():
        Outbox().upsert(session, "1", "2", at=T)
        Outbox().upsert(session, "1", "3", at=T, lane="bulk")
    assert relay.run_once() == Relayed(2, 0)
    assert log.said() == [("upsert", "1", "2", T)]
    assert log.bulk_contacts() == ["3"]


def test_a_row_with_an_id_longer_than_the_relay_allows_is_refused_and_the_others_go(engine: Engine, log: Log) -> None:
    record(engine, ("upsert", "1", "12345", T), ("upsert", "1", "2", T))
    with log.producer(id_max_characters=4) as producer:
        assert Relay(engine, producer).run_once() == Relayed(1, 1)
    assert log.said() == [("upsert", "1", "2", T)]


def test_a_lane_that_somebody_wrote_by_hand_is_refused_and_kept(engine: Engine, relay: Relay) -> None:
    record(engine, ("upsert", "1", "2", T))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.update(CHANGES).values(delivery_lane="x"))
    assert relay.run_once() == Relayed(0, 1)
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.select(CHANGES.c.refused)) == "lane must be 'live' or 'bulk'"


def test_a_table_of_an_earlier_version_is_told_and_gets_its_column(engine: Engine, log: Log) -> None:
    record(engine, ("upsert", "1", "2", T))
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE contact_sync_outbox DROP COLUMN delivery_lane")
    with log.producer() as producer:
        with pytest.raises(
            NoOutbox, match=r"^contact_sync_outbox has no column delivery_lane: see `contact-sync relay"
        ):
            Relay(engine, producer)
        create_tables(engine)
        create_tables(engine)
        assert Relay(engine, producer).run_once() == Relayed(1, 0)
    assert log.said() == [("upsert", "1", "2", T)]


def test_a_database_without_the_tables_is_told_and_one_without_the_lanes_is_mended(database_url: str, log: Log) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with log.producer() as producer:
        with pytest.raises(NoOutbox, match="no table contact_sync_outbox"):
            Relay(engine, producer)
        CHANGES.metadata.create_all(engine)  # as a migration does that was written by comparing tables
        record(engine, ("upsert", "1", "9", T))
        assert Relay(engine, producer).run_once().forwarded == 1
    engine.dispose()
