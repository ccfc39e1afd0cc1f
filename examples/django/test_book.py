"""pip install 'contact-sync[testing,embedded,django]' pytest; then: pytest."""

import os
import sys
from pathlib import Path

import django
import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ["DJANGO_SETTINGS_MODULE"] = "book.settings"


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database of its own, with all tables."""
    os.environ["DATABASE"] = str(tmp_path_factory.mktemp("database") / "book.db")
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture
def http(database):  # noqa: ARG001 - it must be there
    from django.test import Client

    return Client()


def test_each_change_is_said_after_its_commit(http, contact_changes):
    assert http.put("/users/1/contacts/2").status_code == 204
    assert http.put("/users/1/contacts", data="3 4", content_type="text/plain").status_code == 204
    assert http.delete("/users/1/contacts/2").status_code == 204
    assert http.delete("/users/1/contacts/9").status_code == 404
    said = [("upsert", "1", "2"), ("upsert", "1", "3"), ("upsert", "1", "4"), ("delete", "1", "2")]
    assert contact_changes == said


def test_the_relay_says_what_redis_did_not_take(http, contact_changes):
    from django.core.management import call_command

    with contact_changes.redis_away():
        assert http.put("/users/2/contacts/3").status_code == 204
    assert contact_changes == []
    call_command("contact_sync_relay", once=True)
    assert contact_changes == [("upsert", "2", "3")]


def test_a_contact_comes_and_goes_at_the_endpoint(http, wait_until_synced):
    from django.core.management import call_command

    http.put("/users/5/contacts/6")
    call_command("contact_sync_relay", once=True)
    assert wait_until_synced("5", "6")
    http.delete("/users/5/contacts/6")
    call_command("contact_sync_relay", once=True)
    assert not wait_until_synced("5", "6")
