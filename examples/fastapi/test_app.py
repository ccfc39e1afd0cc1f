"""pip install 'contact-sync[testing,embedded,sqlalchemy]' fastapi httpx pytest; then: pytest."""

import importlib

import pytest
from fastapi.testclient import TestClient
from producers import ContactProducer
from producers.outbox import Relay


@pytest.fixture
def book(tmp_path, monkeypatch):
    """The app with a database of its own."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/book.db")
    import app

    return importlib.reload(app)


def forward(book) -> None:
    """Does what `contact-sync relay --once` does."""
    with ContactProducer() as contacts:
        Relay(book.engine, contacts).run_once()


def test_a_change_is_recorded_with_the_contact_and_not_without(book, contact_changes):
    http = TestClient(book.app)
    assert http.put("/users/1/contacts/2").status_code == 204
    assert http.put(f"/users/1/contacts/{'x' * 257}").status_code == 422  # rolled back, in both tables
    assert http.delete("/users/1/contacts/9").status_code == 404
    forward(book)
    assert contact_changes == [("upsert", "1", "2")]
    assert http.get("/users/1/contacts").json() == ["2"]


def test_a_contact_comes_and_goes_at_the_endpoint(book, wait_until_synced):
    http = TestClient(book.app)
    http.put("/users/1/contacts/2")
    forward(book)
    assert wait_until_synced("1", "2")
    http.delete("/users/1/contacts/2")
    forward(book)
    assert not wait_until_synced("1", "2")
