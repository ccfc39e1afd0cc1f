"""A server that does not know XADD repeats its arguments, which hold ids: no error of a producer does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from producers import AsyncContactProducer, ContactProducer, NotAccepted
from worker.local.redis import EmbeddedRedis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    renamed = tmp_path / "renamed.conf"
    renamed.write_text('rename-command XADD ""\n', encoding="utf-8")
    with EmbeddedRedis(config={"include": str(renamed)}) as server:
        yield server.url


def check(error: NotAccepted) -> None:
    for each in (error, error.cause, error.__cause__):
        assert "unknown command 'XADD'" in str(each)
        assert "secret" not in str(each)


def test_no_error_repeats_an_id(url: str) -> None:
    async def send() -> None:
        async with AsyncContactProducer(url) as producer:
            await producer.upsert("secret-owner", "secret-contact")

    with ContactProducer(url) as producer, pytest.raises(NotAccepted) as refused:
        producer.upsert("secret-owner", "secret-contact")
    check(refused.value)
    with pytest.raises(NotAccepted) as refused:
        asyncio.run(send())
    check(refused.value)
