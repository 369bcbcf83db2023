"""Which calls are traced, and where their spans go. The spans of a call are `session_trace`'s.

A caller decides for its call by the metadata `traceparent` of W3C trace context; for the others chance does. Spans wait in a bounded queue
for a thread that exports them: what does not fit is dropped, and nothing waits for a collector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from observability.context import TRACE_ID
from observability.session_trace import SessionTrace

SERVICE = "headrace"

_EXPORT_EVERY_MS = 1000
_EXPORT_WITHIN_S = 2.0
_CALLERS = ("traceparent", "tracestate")

Exporter = Literal["none", "file", "otlp"]
Metadata = Collection[tuple[str, str | bytes]]


class Tracing:
    """One process's.

    Args:
        exporter: where spans go; None makes none, and then a caller's trace id only goes into log lines and exemplars.
        sample: share of calls that are traced, of those whose caller did not decide.
        wall: seconds since the epoch.
    """

    def __init__(self, exporter: SpanExporter | None = None, sample: float = 0.0, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._provider: TracerProvider | None = None
        self._propagator = TraceContextTextMapPropagator()
        if exporter is not None:
            resource = Resource.create({"service.name": SERVICE})
            self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(sample)), resource=resource)
            self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS))
            self._tracer = self._provider.get_tracer(SERVICE)

    def begin(self, service: str, rpc: str, metadata: Metadata, system: str = "grpc") -> SessionTrace | None:
        """The trace of a call that begins now; None if it is not traced. Sets `TRACE_ID` for the task that serves it."""
        if self._provider is None and not metadata:
            return None
        given = _trace_context(metadata)
        caller = self._propagator.extract(given, Context()) if given else Context()
        context = trace.get_current_span(caller).get_span_context()
        if self._provider is not None:
            root = self._tracer.start_span(f"{service}/{rpc}", context=caller, kind=trace.SpanKind.SERVER)
            if root.is_recording():
                context = root.get_span_context()
                TRACE_ID.set(trace.format_trace_id(context.trace_id))
                root.set_attributes({"rpc.system": system, "rpc.service": service, "rpc.method": rpc})
                return SessionTrace(self._tracer, root, self._wall)
        if context.is_valid:
            TRACE_ID.set(trace.format_trace_id(context.trace_id))
        return None

    def close(self) -> None:
        """Export what is left. Blocks, for some seconds if the collector is away."""
        if self._provider is not None:
            self._provider.shutdown()


def _trace_context(metadata: Metadata) -> dict[str, str]:
    """As W3C trace context reads headers that come more than once: two parents are none, and states are one list."""
    given = {key: [value for name, value in metadata if name == key and isinstance(value, str)] for key in _CALLERS}
    parents, states = (given[key] for key in _CALLERS)
    if len(parents) != 1:
        return {}
    return {"traceparent": parents[0]} | ({"tracestate": ",".join(states)} if states else {})


def span_exporter(kind: Exporter, file: str, endpoint: str) -> SpanExporter | None:
    """`file`: a line of JSON for each span, appended. `otlp`: OTLP over HTTP to `endpoint`.

    Raises:
        OSError: the file cannot be written.
    """
    match kind:
        case "none":
            return None
        case "file":
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            return _File(out=Path(file).open("a", encoding="utf-8", buffering=1), formatter=_line)
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - a collector is a choice

            return OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_WITHIN_S)


class _File(ConsoleSpanExporter):
    """It owns what it writes to."""

    def shutdown(self) -> None:
        self.out.close()


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
