"""Spans of requests: linked to the changes in them, and nothing at all where nobody collects spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from producers import ContactChange
from producers.send.trace import current_traceparent
from tests.support.fleet import T
from worker.delivery.tracing import LINKS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.support.fleet import Fleet


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """An SDK that collects spans, as an app sets it up; gone again after the test."""
    exporter, before = InMemorySpanExporter(), trace._TRACER_PROVIDER  # noqa: SLF001 - there is no way to unset it
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace._TRACER_PROVIDER = provider  # noqa: SLF001 - the same
    yield exporter
    trace._TRACER_PROVIDER = before  # noqa: SLF001 - the same


def requests(spans: InMemorySpanExporter) -> Sequence[ReadableSpan]:
    return [each for each in spans.get_finished_spans() if each.name == "contact/sync"]


def test_a_request_is_linked_to_every_trace_whose_change_is_in_it(fleet: Fleet, spans: InMemorySpanExporter) -> None:
    said_in = []
    with fleet.producer() as contacts:
        for number in range(3):
            with trace.get_tracer("app").start_as_current_span("a user's request"):
                said_in.append(current_traceparent())
                contacts.upsert("1", str(number), at=T)
        contacts.upsert("1", "9", at=T)
        contacts.send([ContactChange(owner="1", contact="8", op="upsert", at=T, traceparent=said_in[0])])
    fleet.deliver()
    (request,) = requests(spans)
    links = [f"{each.context.trace_id:032x}-{each.context.span_id:016x}" for each in request.links]
    assert sorted(links) == sorted(each[3:-3] for each in said_in if each)
    assert request.attributes is not None
    assert request.attributes["http.request.method"] == "POST"
    assert request.attributes["http.response.status_code"] == 200
    assert request.status.status_code is StatusCode.UNSET
    assert fleet.settings().endpoint_url in str(request.attributes["url.full"])


@pytest.mark.parametrize(
    ("fault", "says"), [({"kind": "status", "status": 503}, "HTTP 503"), ({"kind": "drop_after"}, "without an answer")]
)
def test_a_request_that_failed_says_why(
    fleet: Fleet, spans: InMemorySpanExporter, fault: dict[str, object], says: str
) -> None:
    fleet.stand_in.faults({**fault, "times": 1})
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    status = requests(spans)[0].status
    assert status.status_code is StatusCode.ERROR
    assert says in str(status.description)


def test_links_end_somewhere_and_what_is_no_traceparent_makes_none(fleet: Fleet, spans: InMemorySpanExporter) -> None:
    def entry(number: int, traceparent: str) -> None:
        fields = {"owner": "1", "contact": str(number), "op": "upsert", "at": T, "traceparent": traceparent}
        fleet.append_raw(fleet.partition("1"), fields)

    entry(1_000, "garbage")
    fleet.deliver()
    assert [len(each.links) for each in requests(spans)] == [0]
    for number in range(1, LINKS_MAX + 20):
        entry(number, f"00-{number:032x}-{number:016x}-01")
    fleet.deliver()
    assert max(len(each.links) for each in requests(spans)) <= LINKS_MAX
    assert sum(len(each.links) for each in requests(spans)) >= LINKS_MAX // 2


def test_where_nobody_collects_spans_there_is_none(fleet: Fleet) -> None:
    fleet.append("1", "2", "upsert", T)
    fleet.deliver()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
