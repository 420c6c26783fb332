"""The Prometheus series of this service."""

from collections.abc import Mapping

from contracts.describe import CacheResult
from web.metrics import SECONDS_BUCKETS, Counter, Gauge, GpuMemory, Histogram, new_registry


class VLMetrics:
    """Series in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = new_registry()
        self._seconds = Histogram(
            "stillmotion_describe_seconds", "Seconds of answered calls, waiting included.", registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._in_flight = Gauge("stillmotion_describe_in_flight", "Calls that wait or run.", registry=registry)
        self._looks = Counter(
            "stillmotion_features", "Pictures of answered calls, by where their features were; miss: computed.",
            ["cache"], registry=registry,
        )
        self._gpu = GpuMemory(registry)

    def described(self, seconds: float) -> None:
        """A call was answered."""
        self._seconds.observe(seconds)

    def looked(self, cache: CacheResult | None) -> None:
        """A picture was seen; None: by a backend that keeps nothing."""
        if cache is not None:
            self._looks.labels(cache).inc()

    def measure(self, in_flight: int) -> None:
        """Show what only changes by itself."""
        self._in_flight.set(in_flight)

    def gpu_memory(self, bytes_by_kind: Mapping[str, Mapping[str, int]]) -> None:
        """What the worker holds, by device, after a call."""
        self._gpu.report(bytes_by_kind)
