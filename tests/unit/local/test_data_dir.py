"""The port of an embedded Redis."""

from __future__ import annotations

from worker.local.data_dir import free_port


def test_a_free_port_is_no_higher_than_asked() -> None:
    assert all(free_port(45_000) <= 45_000 for _ in range(20))
