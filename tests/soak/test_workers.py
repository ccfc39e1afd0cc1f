"""What a soak tells of what its workers said."""

from __future__ import annotations

import pytest

from tests.soak.workers import gist


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("batch_retry", "batch_retry"),
        ("Task handler raised error: ConnectionError('127.0.0.1:6379')", "Task handler raised error"),
        ("Couldn't ack 'b122816d-e6e1', reason:error", "Couldn't ack"),
        ("/opt/app/lib/consumer.py:427: CPendingDeprecationWarning: \nIn Celery 5.1", "CPendingDeprecationWarning"),
    ],
)
def test_a_gist_holds_no_id_no_address_and_no_path(event: str, told: str) -> None:
    assert gist(event) == told
