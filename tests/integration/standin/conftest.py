"""Fixture of the tests of the stand-in endpoint: a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sync_request import client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from worker.standin.client import StandInClient


@pytest.fixture
def client(stand_in: StandInClient) -> Iterator[httpx.Client]:
    """A client of the stand-in endpoint."""
    with client_of(stand_in.url) as client:
        yield client
