"""Prometheus series: one registry per app, what HTTP servers have in common, and `GET /metrics`."""

import time
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560)
_HTTP_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)


def new_registry() -> CollectorRegistry:
    """A registry with the series of the process and of its garbage collector."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetricsMiddleware:
    """Counts requests and measures the time until their answer begins, by method, route and status."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("method", "route", "status")
        self._seconds = Histogram(
            "stillmotion_http_request_seconds", "Time until the answer begins.", labels, registry=registry,
            buckets=_HTTP_BUCKETS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = time.monotonic()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's template, not the path: ids in labels would make a series for every job.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if route != "none" else "none"
                self._seconds.labels(method, route, str(message["status"])).observe(time.monotonic() - started)
            await send(message)

        return await self.app(scope, receive, measured)


class GpuMemory:
    """Memory of the CUDA devices that a process uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bytes = Gauge(
            "stillmotion_gpu_memory_bytes", "CUDA memory by kind: allocated, peak and reserved by torch; total of the "
            "device.", ("device", "kind"), registry=registry,
        )

    def report(self, devices: Mapping[str, Mapping[str, int]]) -> None:
        """Show bytes by kind, by device, as `web.worker.child` measures them."""
        for device, kinds in devices.items():
            for kind, num_bytes in kinds.items():
                self._bytes.labels(device, kind).set(num_bytes)


def add_metrics_route(
    app: FastAPI, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Serve the registry at `/metrics`; `refresh` measures first what is only measured when somebody looks."""

    @app.get("/metrics", include_in_schema=False)
    async def metrics(_: Request) -> Response:
        if refresh is not None:
            await refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


__all__ = [
    "SECONDS_BUCKETS", "Counter", "Gauge", "GpuMemory", "Histogram", "HttpMetricsMiddleware", "add_metrics_route",
    "new_registry",
]
