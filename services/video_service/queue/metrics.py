"""The Prometheus series of this service; none names a render."""

from collections.abc import Mapping

from contracts.videos import RenderResult, RenderState
from web.metrics import SECONDS_BUCKETS, Counter, Gauge, GpuMemory, Histogram, new_registry


class VideoMetrics:
    """Series in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = new_registry()
        self._step_seconds = Histogram(
            "stillmotion_denoise_step_seconds", "Seconds of finished denoising steps.", registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._stage_seconds = Histogram(
            "stillmotion_render_stage_seconds", "Seconds of completed renders by stage.", ("stage",),
            registry=registry, buckets=SECONDS_BUCKETS,
        )
        self._ended = Counter(
            "stillmotion_renders_ended", "Renders by how they ended and their problem's code.", ("state", "code"),
            registry=registry,
        )
        self._waiting = Gauge("stillmotion_render_queue_depth", "Renders that wait.", registry=registry)
        self._gpu = GpuMemory(registry)

    def step(self, seconds: float) -> None:
        """A denoising step has finished."""
        self._step_seconds.observe(seconds)

    def ended(self, state: RenderState, code: str | None, result: RenderResult | None) -> None:
        """A render has ended."""
        self._ended.labels(state, code or "none").inc()
        if result is not None:
            for stage, seconds in result.timings.items():
                self._stage_seconds.labels(stage).observe(seconds)

    def waiting(self, renders: int) -> None:
        """So many renders wait now."""
        self._waiting.set(renders)

    def gpu_memory(self, devices: Mapping[str, Mapping[str, int]]) -> None:
        """Show what the worker measured after a render."""
        self._gpu.report(devices)
