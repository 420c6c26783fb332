"""Traces by OpenTelemetry: recorded and sent where OTEL_EXPORTER_OTLP_ENDPOINT names a collector, else nowhere.

The SDK's other variables (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS …) hold as it documents them.
"""

import logging
import os
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:  # neither is a worker's
    import httpx
    from fastapi.telemetry import TelemetryConfig

HEALTH_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
log = logging.getLogger(__name__)


def is_exported() -> bool:
    """Whether this deployment collects traces."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def configure_tracing(service: str) -> None:
    """Send this process's spans to the collector, where there is one; nothing heavy is imported where there is none."""
    if not is_exported():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces are sent to OTEL_EXPORTER_OTLP_ENDPOINT: install stillmotion[otel] (%s)", error)
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def of_requests() -> "TelemetryConfig":
    """What FastAPI records by itself: a span for each request but health checks. Series and logs are ours."""
    return {
        "tracing": is_exported(), "metrics": False, "logs": False, "operation_spans": False,
        "exclude": lambda scope: scope.get("path") in HEALTH_PATHS,
    }


def record_calls(http: "httpx.AsyncClient") -> None:
    """Record a span for each call of `http`, with which the called service continues the trace."""
    if is_exported():
        try:
            from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
        except ImportError:  # said at the start
            return
        HTTPXClientInstrumentor.instrument_client(http)
