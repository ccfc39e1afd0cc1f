"""OpenTelemetry: a span for each request, linked to the traces of the changes that were read for it.

A batch carries changes of many traces, so it is linked to them and is a child of none. If no SDK collects spans, or the
extra `otel` is not installed, nothing is done.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.core.outcome import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.core.outcome import NoAnswer
    from worker.core.read import RawEntries
    from worker.delivery.request import Sender

LINKS_MAX: Final = 128
"""Most links of a span: the default limit of the SDKs."""

_FIRST_ERROR: Final = 400


class Tracing:
    """A `Sender` that makes a span of each request.

    Args:
        sender: what sends.
        url: where it sends, without user or query.
    """

    def __init__(self, sender: Sender, url: str) -> None:
        self._sender = sender
        self._url = url
        self._propagator = TraceContextTextMapPropagator()
        self._of_thread = threading.local()

    def read(self, logs: Iterable[tuple[RawEntries, int]]) -> None:
        """Remembers the traces of what this thread read for its next request.

        Args:
            logs: entries as Redis returns them, and how many of them are in the slices of the batch.
        """
        self._of_thread.parents = _traceparents(logs) if _collected() else ()

    def send(self, body: bytes, server_key: str, deadline_monotonic: float | None = None) -> Answer | NoAnswer:
        """Sends as the sender does, in a span if spans are collected."""
        if not _collected():
            return self._sender.send(body, server_key, deadline_monotonic)
        links = [trace.Link(context) for context in map(self._context, self._parents()) if context.is_valid]
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "url.full": self._url,
            "http.request.body.size": len(body),
        }
        with trace.get_tracer("contact_sync").start_as_current_span(
            "contact/sync", kind=trace.SpanKind.CLIENT, links=links, attributes=attributes
        ) as span:
            answer = self._sender.send(body, server_key, deadline_monotonic)
            if isinstance(answer, Answer):
                span.set_attribute("http.response.status_code", answer.status)
                if answer.status >= _FIRST_ERROR:
                    span.set_status(trace.StatusCode.ERROR, f"HTTP {answer.status}")
            else:
                span.set_status(trace.StatusCode.ERROR, answer.why)
            return answer

    def distrust(self) -> None:
        """Stops using the connection of this thread's last answer."""
        self._sender.distrust()

    def _parents(self) -> Iterable[str]:
        parents: Iterable[str] = getattr(self._of_thread, "parents", ())
        self._of_thread.parents = ()
        return parents

    def _context(self, traceparent: str) -> trace.SpanContext:
        return trace.get_current_span(self._propagator.extract({"traceparent": traceparent})).get_span_context()


def _collected() -> bool:
    """Whether spans are collected: until an SDK is set up, the provider is a proxy."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def _traceparents(logs: Iterable[tuple[RawEntries, int]]) -> Iterable[str]:
    """The distinct traceparents, at most as many as a span has links."""
    found: dict[str, None] = {}
    fields: list[bytes]
    for raw, count in logs:
        for _, fields in raw[:count]:
            # Optional fields come after the four that every change has.
            for i in range(0, len(fields), 2):
                if fields[i] == b"traceparent":
                    found[fields[i + 1].decode("ascii", "replace")] = None
                    break
            if len(found) >= LINKS_MAX:
                return found
    return found
