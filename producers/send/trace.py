"""The current trace, if the app uses OpenTelemetry. This module never loads OpenTelemetry itself."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """Returns the current span's W3C traceparent; None if there is no span, or it is not sampled."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
