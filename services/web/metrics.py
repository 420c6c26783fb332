"""Prometheus series: one registry per app, and `GET /metrics`."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560)


def new_registry() -> CollectorRegistry:
    """A registry with the series of the process and of its garbage collector."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class GpuMemory:
    """Memory of the CUDA devices that a process uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bytes = Gauge(
            "stillmotion_gpu_memory_bytes", "CUDA memory by kind: allocated, peak and reserved by torch; total of the "
            "device.", ("device", "kind"), registry=registry,
        )

    def report(self, devices: Mapping[str, Mapping[str, int]]) -> None:
        """Show bytes by kind, by device, as `web.worker.devices` measures them."""
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
    "SECONDS_BUCKETS", "Counter", "Gauge", "GpuMemory", "Histogram", "add_metrics_route",
    "new_registry",
]
