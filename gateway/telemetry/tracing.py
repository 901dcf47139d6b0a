"""
Traces: one span a request, joined to the caller's trace by `traceparent`, and Triton's spans joined
to it the same way. Off unless a collector is named; then nothing here runs.

Source: W3C "Trace Context"; OpenTelemetry, semantic conventions of HTTP spans; Triton, "Trace
Extension" (mode opentelemetry).
"""

import contextlib
import importlib
from collections.abc import Iterator, Mapping

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.telemetry.observation import Observation

_CONTEXT = TraceContextTextMapPropagator()


class TracingUnavailable(Exception):
    """A collector is named, and what sends traces to it is not installed."""


def require_tracing(endpoint: str | None) -> None:
    """
    Check that traces can be sent, if a collector is named.

    Raises:
        TracingUnavailable: The extra `otel` is not installed.
    """
    if not endpoint:
        return
    try:
        for module in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"):
            importlib.import_module(module)
    except ImportError as error:
        raise TracingUnavailable(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs the extra otel: pip install 'onnx-gateway[otel]'."
        ) from error


@contextlib.contextmanager
def open_tracing(endpoint: str | None) -> Iterator[Tracer | None]:
    """Yield a tracer that sends to a collector, its last spans at the end; None without one."""
    if not endpoint:
        yield None
        return
    # Optional, and slow to import.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource({"service.name": "onnx-gateway"}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("gateway")
    finally:
        provider.shutdown()


@contextlib.contextmanager
def request_span(tracer: Tracer, name: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """Begin the span of a request, as a child of what the caller's headers name; end it."""
    span = tracer.start_span(name, _CONTEXT.extract(headers), kind=SpanKind.SERVER)
    with use_span(span, end_on_exit=True):
        yield span


def trace_id_of(span: Span) -> str:
    """Return a span's trace in hexadecimal."""
    return f"{span.get_span_context().trace_id:032x}"


def describe(span: Span, seen: Observation) -> None:
    """Write what is known of a request on its span."""
    span.set_attribute("http.response.status_code", seen.status)
    for name, value in (("model", seen.model), ("version", seen.version), ("error", seen.code)):
        if value:
            span.set_attribute(f"gateway.{name}", value)
    for stage, took_s in seen.stages_s.items():
        span.set_attribute(f"gateway.{stage}_s", took_s)
    if seen.status >= 500:
        span.set_status(Status(StatusCode.ERROR, seen.code))


def triton_arguments(endpoint: str | None) -> tuple[str, ...]:
    """Return the arguments that make a tritonserver send its spans to the collector, too."""
    if not endpoint:
        return ()
    return tuple(
        f"--trace-config={part}"
        for part in (
            "mode=opentelemetry",
            "rate=1",
            "level=TIMESTAMPS",
            f"opentelemetry,url={endpoint.rstrip('/')}/v1/traces",
        )
    )
