"""A change goes into the log with the trace in which the app reported it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from producers import AsyncContactProducer, ContactChange, ContactProducer, ProducerSettings
from producers.send.trace import current_traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACER = TracerProvider().get_tracer("app")
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


def entries(server: fakeredis.FakeServer) -> list[Mapping[str, str]]:
    found: Any = fakeredis.FakeRedis(server=server, decode_responses=True).xrange("contact-sync:{0}:events")
    return [fields for _, fields in found]


SETTINGS = ProducerSettings(partitions=1)


def test_changes_carry_the_current_span_and_what_names_another_keeps_it(server: fakeredis.FakeServer) -> None:
    with ContactProducer(settings=SETTINGS, client=fakeredis.FakeRedis(server=server)) as contacts:
        with TRACER.start_as_current_span("request"):
            here = current_traceparent()
            contacts.upsert("1", "2")
            contacts.send(
                [
                    ContactChange(owner="1", contact="3", op="delete", source="crm"),
                    ContactChange(owner="1", contact="4", op="delete", traceparent=OTHER),
                ]
            )
        contacts.upsert("1", "5")
    assert here is not None
    assert [each.get("traceparent") for each in entries(server)] == [here, here, OTHER, None]
    assert [each.get("source") for each in entries(server)] == [None, "crm", None, None]


def test_each_task_has_its_own_though_they_share_a_round_trip(server: fakeredis.FakeServer) -> None:
    async def request(contacts: AsyncContactProducer, number: int) -> str | None:
        with TRACER.start_as_current_span("request"):
            await contacts.upsert("1", str(number))
            return current_traceparent()

    async def app() -> list[str | None]:
        client = fakeredis.FakeAsyncRedis(server=server)
        async with AsyncContactProducer(settings=SETTINGS, client=client) as contacts:
            return list(await asyncio.gather(*(request(contacts, number) for number in range(3))))

    said_in = asyncio.run(app())
    assert len({*said_in} - {None}) == 3
    assert [each["traceparent"] for each in entries(server)] == said_in


def test_a_trace_that_nobody_samples_is_not_carried() -> None:
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("app").start_as_current_span("request"):
        assert current_traceparent() is None


def test_an_app_without_opentelemetry_says_its_changes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with TRACER.start_as_current_span("request"):
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        assert current_traceparent() is None
