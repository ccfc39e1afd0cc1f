"""The Django app: recorded in the transaction, forwarded right after its commit, and by relays where that failed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from io import StringIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import django
import pytest
import sqlalchemy
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from producers import InvalidChange
from producers.outbox import Relay
from producers.relay.lane import lane_of
from producers.send import pressure
from tests.outbox.postgres import own_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.outbox.conftest import Log
    from tests.support.waiting import WaitUntil

T = 1_795_460_847_757
AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[dict[str, str]]:
    """The app's databases with all that it migrates, as SQLAlchemy names them."""
    sqlite = tmp_path_factory.mktemp("shop") / "shop.db"
    with own_database(postgres_server) as postgres:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "tests.outbox.django_settings",
            "SHOP_SQLITE": str(sqlite),
            "SHOP_POSTGRES": postgres,
        }
        django.setup()
        for alias in ("default", "postgresql"):
            call_command("migrate", database=alias, run_syncdb=True, verbosity=0)
        yield {"default": f"sqlite:///{sqlite}", "postgresql": postgres}
        connections.close_all()


@pytest.fixture(params=["default", "postgresql"])
def using(request: pytest.FixtureRequest, urls: dict[str, str], log: Log) -> Iterator[str]:
    """A database of the app, with an empty outbox; Redis is the log's."""
    from django.conf import settings  # noqa: PLC0415 - it is there once the app is set up

    from producers.django import forwarding  # noqa: PLC0415 - the same

    assert urls
    settings.CONTACT_SYNC = {
        "REDIS_URL": log.settings.redis_url,
        "NAMESPACE": log.settings.namespace,
        "PARTITIONS": log.settings.partitions,
        "SOURCE": "shop",
    }
    forwarding._COOLDOWN.__init__()  # type: ignore[misc] # noqa: SLF001 - another test may have begun one
    yield request.param
    with connections[request.param].cursor() as cursor:
        cursor.execute("DELETE FROM contact_sync_outbox")
        cursor.execute("DELETE FROM shop_contact")


def configure(**given: Any) -> None:
    from django.conf import settings  # noqa: PLC0415 - as above

    settings.CONTACT_SYNC = {**settings.CONTACT_SYNC, **given}


def waiting(using: str) -> int:
    from producers.django.forwarding import waiting as look  # noqa: PLC0415 - as above

    return look(using).changes


def test_what_is_committed_is_forwarded_at_once_and_what_is_rolled_back_never(using: str, log: Log) -> None:
    from producers.django import delete, upsert  # noqa: PLC0415 - as above

    with transaction.atomic(using):
        recorded = upsert("界", "2", using=using)
        delete("1", "9", using=using, at=T, source="importer")
        assert log.said() == []
        assert waiting(using) == 2

    def fail() -> None:
        with transaction.atomic(using):
            upsert("1", "3", using=using)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sorted(log.said()) == sorted([("upsert", "界", "2", recorded.at or 0), ("delete", "1", "9", T)])
    assert {each["contact"]: each["source"] for each in log.entries()} == {"2": "shop", "9": "importer"}
    assert waiting(using) == 0


def test_a_change_takes_the_stream_of_its_lane_and_rows_that_name_none_are_live(using: str, log: Log) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above
    from producers.django.forwarding import relay  # noqa: PLC0415 - as above

    upsert("1", "2", using=using, lane="bulk")
    with connections[using].cursor() as cursor:  # as a process of the earlier version writes them
        columns = "lane, owner, contact, op, at"
        row = f"{lane_of('1')}, '1', '3', 'upsert', {T}"
        cursor.execute(f"INSERT INTO contact_sync_outbox ({columns}) VALUES ({row})")  # noqa: S608 - constants
    with log.producer() as producer:
        relay(producer, using)
    assert log.bulk_contacts() == ["2"]
    assert log.said() == [("upsert", "1", "3", T)]


def test_bulk_rows_stay_while_redis_is_filling_up_and_live_ones_go(
    using: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above
    from producers.django.forwarding import relay  # noqa: PLC0415 - as above

    monkeypatch.setattr(pressure, "BULK_WAITING_MAX", 1)
    log.client.xadd(log.settings.keys.bulk(0), {"owner": "x"})
    with transaction.atomic(using):
        upsert("1", "2", using=using, lane="bulk")
        upsert("1", "3", using=using)
    assert waiting(using) == 1
    assert [each["contact"] for each in log.entries()] == ["3"]
    log.client.delete(log.settings.keys.bulk(0))
    with log.producer() as producer:
        assert relay(producer, using).forwarded == 1
    assert log.bulk_contacts() == ["2"]


def test_a_change_outside_of_a_transaction_is_its_own(using: str, log: Log) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above

    upsert("1", "2", using=using, at=T)
    assert log.said() == [("upsert", "1", "2", T)]


def test_a_savepoint_that_is_rolled_back_takes_its_own_back_alone(using: str, log: Log) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above

    def fail() -> None:
        with transaction.atomic(using):
            upsert("1", "3", using=using, at=T)
            raise ZeroDivisionError

    with transaction.atomic(using):
        with pytest.raises(ZeroDivisionError):
            fail()
        with transaction.atomic(using):
            upsert("1", "4", using=using, at=T)
    assert log.said() == [("upsert", "1", "4", T)]


def test_many_in_one_transaction_are_forwarded_once(using: str, log: Log) -> None:
    from producers.django import record, upsert  # noqa: PLC0415 - as above

    with transaction.atomic(using):
        for n in range(20):
            upsert("1", str(n), using=using, at=T + n)
        assert len(connections[using].run_on_commit) == 1
        with pytest.raises(InvalidChange):
            record([{"owner": "1", "contact": "x", "op": "upsert"}, {"owner": "1"}], using=using)
    assert [contact for _, _, contact, _ in log.said()] == [str(n) for n in range(20)]


def test_a_redis_that_is_away_is_logged_once_and_left_to_the_relay(
    using: str, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    from producers.django import delete, upsert  # noqa: PLC0415 - as above

    configure(REDIS_URL=AWAY)
    with caplog.at_level(logging.WARNING, "contact_sync"):
        upsert("1", "2", using=using, at=T)
        delete("1", "2", using=using, at=T + 1)  # Redis was found away just now, and is not asked again
    assert [each.getMessage() for each in caplog.records] == ["changes wait in the outbox for a relay: ConnectionError"]
    assert waiting(using) == 2
    with pytest.raises(CommandError, match="0 forwarded, 2 left in the outbox"):
        call_command("contact_sync_relay", once=True, database=using)
    configure(REDIS_URL=log.settings.redis_url)
    told = StringIO()
    call_command("contact_sync_relay", once=True, database=using, stdout=told)
    assert told.getvalue() == "2 forwarded\n"
    assert log.said() == [("upsert", "1", "2", T), ("delete", "1", "2", T + 1)]


def test_forwarding_after_commit_can_be_left_to_relays_altogether(using: str, log: Log) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above

    configure(FORWARD_AFTER_COMMIT=False)
    upsert("1", "2", using=using)
    assert log.said() == []
    call_command("contact_sync_relay", once=True, database=using, stdout=StringIO())
    assert len(log.said()) == 1


def test_either_librarys_relay_forwards_what_the_other_recorded(using: str, urls: dict[str, str], log: Log) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above

    configure(FORWARD_AFTER_COMMIT=False)
    upsert("1", "2", using=using, at=T)
    engine = sqlalchemy.create_engine(urls[using])
    with log.producer() as producer:
        assert Relay(engine, producer).run_once().forwarded == 1
    engine.dispose()
    assert log.said() == [("upsert", "1", "2", T)]


def test_an_id_of_more_characters_than_the_settings_allow_is_not_recorded(using: str, log: Log) -> None:
    from producers.django import record, upsert  # noqa: PLC0415 - as above

    configure(ID_MAX_CHARACTERS=3)
    upsert("1", "界界界", using=using)
    with pytest.raises(InvalidChange, match=r"^owner must have at most 3 characters"):
        record([{"owner": "1234", "contact": "2", "op": "upsert"}], using=using)
    assert [each[2] for each in log.said()] == ["界界界"]


def test_rows_that_break_a_rule_are_kept_aside(using: str, log: Log) -> None:
    from producers.django.models import Change  # noqa: PLC0415 - as above

    lane = lane_of("1")
    for at_lane, owner, op in ((lane, "", "upsert"), (lane, "1", "update"), (16, "1", "delete"), (lane, "1", "delete")):
        Change.objects.using(using).create(lane=at_lane, owner=owner, contact="9", op=op, at=T)
    told = StringIO()
    call_command("contact_sync_relay", once=True, database=using, stdout=told)
    assert told.getvalue() == "1 forwarded, 3 refused: see the column `refused`\n"
    assert log.said() == [("delete", "1", "9", T)]


@pytest.mark.usefixtures("using")
@pytest.mark.parametrize("using", ["default"], indirect=True)
def test_text_in_sqlite_that_is_not_utf8_is_refused_and_stops_nobody(log: Log) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above

    configure(FORWARD_AFTER_COMMIT=False)
    upsert("1", "2", at=T)
    with connections["default"].cursor() as cursor:
        cursor.execute("UPDATE contact_sync_outbox SET contact = CAST(X'ff41' AS TEXT)")
    configure(FORWARD_AFTER_COMMIT=True)
    upsert("1", "3", at=T)  # of the same lane: it is forwarded right after its commit
    assert log.said() == [("upsert", "1", "3", T)]
    told = StringIO()
    call_command("contact_sync_relay", once=True, stdout=told)
    assert told.getvalue() == "0 forwarded, 1 refused: see the column `refused`\n"


@pytest.fixture
def unconnected() -> Iterator[None]:
    """Takes back what a test lets signals do."""
    from django.db.models import signals  # noqa: PLC0415 - as above

    kinds = (signals.class_prepared, signals.post_save, signals.pre_delete, signals.post_delete)
    before = [list(each.receivers) for each in kinds]
    yield
    for each, receivers in zip(kinds, before, strict=True):
        each.receivers = receivers
        each.sender_receivers_cache.clear()


@pytest.mark.usefixtures("unconnected")
def test_signals_record_what_happens_to_a_models_rows(using: str, log: Log) -> None:
    from producers.django import sync_contacts  # noqa: PLC0415 - as above
    from tests.outbox.shop.models import Contact  # noqa: PLC0415 - as above

    for _ in range(2):  # registered twice, it records once
        sync_contacts(Contact, owner="user_id", contact=lambda row: row.contact_id)
    with transaction.atomic(using):
        row = Contact.objects.using(using).create(user_id=1, contact_id=2)
        row.delete()
        Contact.objects.using(using).create(user_id=1, contact_id=3)
    assert [each[:3] for each in log.said()] == [("upsert", "1", "2"), ("delete", "1", "2"), ("upsert", "1", "3")]
    Contact.objects.using(using).all().delete()
    assert log.said()[-1][:3] == ("delete", "1", "3")


@pytest.mark.usefixtures("unconnected")
def test_a_row_may_stand_for_two_pairs(using: str, log: Log) -> None:
    from producers.django import sync_contacts  # noqa: PLC0415 - as above
    from tests.outbox.shop.models import Contact  # noqa: PLC0415 - as above

    ends: list[Callable[[Any], object]] = [lambda row: row.user_id, lambda row: row.contact_id]
    for owner, contact in (("user_id", "contact_id"), ("contact_id", "user_id"), ends, ends[::-1]):
        sync_contacts(Contact, owner=owner, contact=contact)
    with transaction.atomic(using):
        Contact.objects.using(using).create(user_id=11, contact_id=12).delete()
    told = sorted(each[:3] for each in log.said())
    assert {(op, owner, contact) for op, owner, contact in told} == {
        (op, owner, contact) for op in ("upsert", "delete") for owner, contact in (("11", "12"), ("12", "11"))
    }
    assert told.count(("delete", "12", "11")) == 2, "by names and by functions"


@pytest.mark.usefixtures("unconnected")
def test_a_row_that_was_not_loaded_whole_can_be_deleted(using: str, log: Log) -> None:
    from producers.django import sync_contacts  # noqa: PLC0415 - as above
    from tests.outbox.shop.models import Contact  # noqa: PLC0415 - as above

    sync_contacts(Contact, owner="user_id", contact="contact_id")
    Contact.objects.using(using).create(user_id=1, contact_id=2)
    Contact.objects.using(using).only("id").get().delete()
    assert [each[:3] for each in log.said()] == [("upsert", "1", "2"), ("delete", "1", "2")]


@pytest.mark.usefixtures("unconnected")
def test_what_is_done_by_a_proxy_of_the_model_is_recorded_too(using: str, log: Log) -> None:
    from producers.django import sync_contacts  # noqa: PLC0415 - as above
    from tests.outbox.shop.models import Contact, ShownContact  # noqa: PLC0415 - as above

    sync_contacts(Contact, owner="user_id", contact="contact_id")
    with transaction.atomic(using):
        ShownContact.objects.using(using).create(user_id=1, contact_id=2).delete()
        ShownContact.objects.using(using).create(user_id=1, contact_id=3)
        ShownContact.objects.using(using).all().delete()
    said = [("upsert", "1", "2"), ("delete", "1", "2"), ("upsert", "1", "3"), ("delete", "1", "3")]
    assert [each[:3] for each in log.said()] == said

    options = type("Meta", (), {"app_label": "shop", "proxy": True})
    later: Any = type(f"Later{using}", (Contact,), {"__module__": Contact.__module__, "Meta": options})
    later.objects.using(using).create(user_id=1, contact_id=4)
    assert log.said()[-1][:3] == ("upsert", "1", "4")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"REDIS_URI": "x"}, "CONTACT_SYNC has no setting 'REDIS_URI', only FORWARD_AFTER_COMMIT, ID_MAX_CHARACTERS, "),
        ({"PARTITIONS": 0}, "CONTACT_SYNC: CONTACT_SYNC_PARTITIONS must be"),
        ({"REDIS_URL": "http://x"}, "CONTACT_SYNC: CONTACT_SYNC_REDIS_URL"),
        ({"SOURCE": "s" * 65}, r"CONTACT_SYNC\['SOURCE'\]: source must be a string of at most 64 bytes"),
    ],
)
def test_a_setting_that_does_not_fit_is_said_when_the_app_starts(using: str, given: dict[str, Any], said: str) -> None:
    from django.apps import apps  # noqa: PLC0415 - as above

    assert using
    configure(**given)
    with pytest.raises(ImproperlyConfigured, match=said):
        apps.get_app_config("contact_sync").ready()


def test_the_migration_makes_what_the_models_say(using: str) -> None:
    call_command("makemigrations", "contact_sync", check=True, dry_run=True, verbosity=0)
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM contact_sync_outbox_lane")
        assert cursor.fetchone() == (16,)


APP = """
import sys, django
django.setup()
from django.db import transaction
from producers.django import upsert
from tests.outbox.shop.models import Contact
using = sys.argv[1]
for n in range(10_000_000):
    with transaction.atomic(using):
        Contact.objects.using(using).create(user_id=n % 7, contact_id=n)
        upsert(str(n % 7), str(n), using=using)
        print("recorded", n, flush=True)
    print("committed", n, flush=True)
"""


@pytest.mark.parametrize("line", ["recorded 0", "committed 0", "recorded 9", "committed 9"])
def test_an_app_that_is_killed_said_what_it_committed_and_no_more(using: str, log: Log, line: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APP, using], env={**os.environ, **log.environment()}, stdout=subprocess.PIPE, text=True
    ) as app:
        assert app.stdout is not None
        for said in app.stdout:
            if said == f"{line}\n":
                app.kill()
                break
    call_command("contact_sync_relay", once=True, database=using, stdout=StringIO())
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT user_id, contact_id FROM shop_contact")
        there = {(str(owner), str(contact)) for owner, contact in cursor.fetchall()}
    assert {(owner, contact) for _, owner, contact, _ in log.said()} == there


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_relay_goes_on_until_it_is_asked_to_end(
    using: str, log: Log, tmp_path: Path, wait_until: WaitUntil, number: int
) -> None:
    from producers.django import upsert  # noqa: PLC0415 - as above

    configure(FORWARD_AFTER_COMMIT=False)
    with subprocess.Popen(
        [sys.executable, "-m", "django", "contact_sync_relay", "--database", using, "--poll", "0.01"],
        env={**os.environ, **log.environment()},
        cwd=os.getcwd(),  # noqa: PTH109 - where this run began
        stderr=(tmp_path / "said").open("wb"),
    ) as process:
        upsert("1", "2", using=using)
        wait_until(lambda: len(log.said()) == 1, seconds=60, what="it forwards")
        upsert("1", "3", using=using)
        wait_until(lambda: len(log.said()) == 2, seconds=60, what="it goes on")
        process.send_signal(number)
        assert process.wait(30) == 0
    assert (tmp_path / "said").read_text() == ""


def test_lanes_that_were_emptied_with_all_tables_are_added_again(using: str, log: Log) -> None:
    """`flush`, and each TransactionTestCase, empties them: nothing was forwarded from then on."""
    from producers.django import upsert  # noqa: PLC0415 - as above
    from producers.django.models import Lane  # noqa: PLC0415 - as above

    Lane.objects.using(using).all().delete()
    upsert("1", "2", using=using, at=T)
    assert log.said() == [("upsert", "1", "2", T)]

    configure(FORWARD_AFTER_COMMIT=False)
    upsert("1", "3", using=using, at=T)
    Lane.objects.using(using).all().delete()
    told = StringIO()
    call_command("contact_sync_relay", once=True, database=using, stdout=told)
    assert told.getvalue().startswith("1 forwarded")


def test_a_save_outside_of_a_transaction_is_one_with_its_change(
    using: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    from producers.django import signals, sync_contacts  # noqa: PLC0415 - as above
    from tests.outbox.shop.models import Contact  # noqa: PLC0415 - as above

    sync_contacts(Contact, owner="user_id", contact="contact_id")

    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(signals, "upsert", crash)
    with pytest.raises(ZeroDivisionError):
        Contact.objects.using(using).create(user_id=1, contact_id=2)
    assert not Contact.objects.using(using).exists()
    assert log.said() == []


@pytest.mark.parametrize("owner", ["user_id", "user.external_id", "function"])
def test_a_row_without_owner_or_contact_is_no_pair(owner: str) -> None:
    from producers.django.signals import _getter  # noqa: PLC0415 - as above

    row = SimpleNamespace(user_id=None, user=None, contact_id=7)
    assert _getter((lambda row: row.user_id) if owner == "function" else owner)(row) is None
    assert _getter("contact_id")(row) == "7"
    with pytest.raises(AttributeError):
        _getter("misspelled")(row)
