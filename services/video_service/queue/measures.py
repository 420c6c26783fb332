"""What is measured of renders: the Prometheus series, and from it progress, time to the end, and when to try again."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.videos import RenderResult, RenderStage, RenderState
from web.metrics import SECONDS_BUCKETS, Counter, Gauge, GpuMemory, Histogram, new_registry

# Share of a render at which each stage begins; the next stage's begin is its end.
_STAGE_SPANS: dict[RenderStage, tuple[float, float]] = {
    "text": (0.0, 0.03), "condition": (0.03, 0.06), "denoise": (0.06, 0.80), "decode": (0.80, 0.98),
    "write": (0.80, 0.99),  # frames are written while later ones decode
}
_NEWEST_WEIGHT = 0.5
_WORTH = 0.95  # of the time alone, or it is not worth that they wait for each other
MIN_RETRY_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The size of a render: `voxels` = width x height x frames, and passes through the network for each of them."""

    model: str
    voxels: int
    passes: int


class Pace:
    """Measured speed of this machine with each model, as moving averages over completed renders."""

    def __init__(self) -> None:
        self._denoise_s: dict[str, float] = {}  # per voxel and pass
        self._other_s: dict[str, float] = {}  # per voxel
        self._pass_s: dict[tuple[str, int, int], float] = {}  # by model, voxels of a clip, and clips in a batch

    def learn(self, work: Work, result: RenderResult) -> None:
        """Take in the timings of a completed render."""
        total_s, denoise_s = result.timings.get("total"), result.timings.get("denoise")
        if total_s is None or denoise_s is None:
            return
        key = work.model, work.voxels, result.batch
        self._pass_s[key] = _newer(self._pass_s.get(key), denoise_s / work.passes)
        if result.batch > 1:
            return
        other_s = max(0.0, total_s - denoise_s - result.timings.get("load", 0.0))
        _average(self._denoise_s, work.model, denoise_s / (work.voxels * work.passes))
        _average(self._other_s, work.model, other_s / work.voxels)

    def batch_of(self, work: Work, most: int) -> int:
        """How many such renders to denoise as one, up to `most`: as many as took less time each than one alone.

        One alone before that was measured; a number that was never tried is tried.
        """
        alone_s = self._pass_s.get((work.model, work.voxels, 1))
        if alone_s is None:
            return 1
        for clips in range(most, 1, -1):
            together_s = self._pass_s.get((work.model, work.voxels, clips))
            if together_s is None or together_s / clips < alone_s * _WORTH:
                return clips
        return 1

    def avoid(self, work: Work, clips: int) -> None:
        """So many such renders at once failed where one alone may not."""
        self._pass_s[work.model, work.voxels, clips] = math.inf

    def denoise_s(self, work: Work) -> float | None:
        """Seconds of denoising, or None before anything was measured."""
        measured = self._denoise_s.get(work.model)
        return None if measured is None else measured * work.voxels * work.passes

    def other_s(self, work: Work) -> float | None:
        """Seconds of everything but denoising, or None before anything was measured."""
        measured = self._other_s.get(work.model)
        return None if measured is None else measured * work.voxels

    def total_s(self, work: Work) -> float | None:
        """Seconds of a whole render, or None before anything was measured."""
        denoise_s, other_s = self.denoise_s(work), self.other_s(work)
        return None if denoise_s is None or other_s is None else denoise_s + other_s


@dataclass(slots=True, kw_only=True)
class Clock:
    """What has been seen of the running render. Times are monotonic seconds."""

    work: Work
    started_s: float
    stage: RenderStage | None = None
    step: int = 0
    num_steps: int = 0
    progress: float = 0.0
    last_step_took_s: float = 0.0
    _stage_started_s: dict[RenderStage, float] = field(init=False, default_factory=dict)
    _last_report_s: float = field(init=False)
    _last_step_s: float = field(init=False, default=0.0)
    _decoded: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._last_report_s = self.started_s

    def advance(self, stage: RenderStage, done: int, total: int, now_s: float) -> None:
        """Take in one report of the worker."""
        # A stage that first reports finished work began when the one before it last reported.
        self._stage_started_s.setdefault(stage, now_s if done == 0 else self._last_report_s)
        self._last_report_s = now_s
        self.stage = stage
        if stage == "denoise":
            if done > self.step:
                began_s = self._last_step_s or self._stage_started_s["denoise"]
                self.last_step_took_s = (now_s - began_s) / (done - self.step)
            self.step, self.num_steps, self._last_step_s = done, total, now_s
        if stage == "decode":
            self._decoded = done / total if total else 0.0
        begin, end = _STAGE_SPANS[stage]
        # Stages overlap, progress never goes back.
        self.progress = max(self.progress, begin + (end - begin) * (done / total if total else 0.0))

    def remaining_s(self, pace: Pace, now_s: float) -> float | None:
        """Seconds to the end; None before a step was measured, in this render or an earlier one.

        Until a first render has completed, the time after denoising is not known and not counted.
        """
        other_s = pace.other_s(self.work)
        if "decode" in self._stage_started_s:
            elapsed_s = now_s - self._stage_started_s["decode"]
            if self._decoded > 0:
                return elapsed_s / self._decoded * (1 - self._decoded)
            return None if other_s is None else max(0.0, other_s - elapsed_s)
        denoise_s = self._denoise_remaining_s(pace, now_s)
        return None if denoise_s is None else denoise_s + (other_s or 0.0)

    def _denoise_remaining_s(self, pace: Pace, now_s: float) -> float | None:
        if self.step == 0:
            expected_s = pace.denoise_s(self.work)
            started_s = self._stage_started_s.get("denoise", now_s)
            return None if expected_s is None else max(0.0, expected_s - (now_s - started_s))
        step_s = (self._last_step_s - self._stage_started_s["denoise"]) / self.step
        return max(0.0, step_s * (self.num_steps - self.step) - (now_s - self._last_step_s))


def retry_after_s(clock: Clock | None, pace: Pace, now_s: float) -> int:
    """Whole seconds until a place in the queue is free: when the running render ends.

    With nothing measured yet, as long again as it has already taken.
    """
    if clock is None:
        return MIN_RETRY_S
    remaining_s = clock.remaining_s(pace, now_s)
    if remaining_s is None:
        remaining_s = now_s - clock.started_s
    return max(MIN_RETRY_S, math.ceil(remaining_s))


class VideoMetrics:
    """Series in a registry of their own; none names a render."""

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
        self._running = Gauge("stillmotion_renders_running", "Renders at work, several in a batch.", registry=registry)
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

    def at_work(self, *, waiting: int, running: int) -> None:
        """So many renders wait and run now."""
        self._waiting.set(waiting)
        self._running.set(running)

    def gpu_memory(self, devices: Mapping[str, Mapping[str, int]]) -> None:
        """Show what the worker measured after a render."""
        self._gpu.report(devices)


def _average(of: dict[str, float], model: str, new: float) -> None:
    of[model] = _newer(of.get(model), new)


def _newer(old: float | None, new: float) -> float:
    return new if old is None or math.isinf(old) else old + _NEWEST_WEIGHT * (new - old)
