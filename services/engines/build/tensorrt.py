"""ONNX to an engine, through TensorRT or TensorRT-RTX alike."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from engines.build.trt_progress import Monitor, Progress
from engines.run.trt_api import TensorRT
from engines.run.trt_log import Log
from engines.run.trt_protocol import (
    Builder,
    BuilderConfig,
    HostMemory,
    Network,
    ParserError,
    RtxBuilderConfig,
    view,
)

RTX_CAPABILITIES = ("SM86", "SM89", "SM120")


class EngineBuildFailed(Exception):
    """TensorRT refused the graph; the message is TensorRT's own, and what to do where that is known."""


class KeptTimings(Protocol):
    """How fast kernels were found to be, kept from build to build."""

    def read(self) -> bytes:
        """Empty where nothing is kept."""
        ...

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replace what is kept by `change` of it; no other process comes in between."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How to build."""

    capability: str | None = None
    """TensorRT-RTX only, such as `SM89`: the GPU it is built for; none is needed here."""
    stream_weights: bool = False
    """The weights may stay in host memory and be copied when needed: for a GPU that does not hold them."""
    refit: bool = False
    """The weights can be replaced later. TensorRT-RTX then needs a GPU to build."""
    timings: KeptTimings | None = None
    progress: Progress | None = None


def build_engine(api: TensorRT, onnx_path: Path, *, capability: str | None = None) -> bytes:
    """As `build_plan`, the plan as bytes."""
    return bytes(view(build_plan(api, onnx_path, PlanOptions(capability=capability))))


def build_plan(api: TensorRT, onnx_path: Path, options: PlanOptions) -> HostMemory:
    """Build the graph; its numbers are as precise as the graph says (strongly typed).

    Args:
        api: from `load_tensorrt` (builds for the GPU of this machine) or `load_tensorrt_rtx`.
        onnx_path: graph.onnx, its external data beside it.

    Raises:
        EngineBuildFailed: it does not parse, or the builder made nothing.
    """
    said = Log(api)
    builder = api.Builder(said.logger)
    if builder is None:
        raise EngineBuildFailed(said.reason("TensorRT has no builder on this machine: there is no usable GPU"))
    network = _strongly_typed(api, builder)
    parser = api.OnnxParser(network, said.logger)
    if not parser.parse_from_file(str(onnx_path)):
        errors = [_told(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineBuildFailed("the graph does not parse: " + ("; ".join(errors) or said.reason("no cause given")))
    config = builder.create_builder_config()
    _configure(api, config, options)
    with _timed(config, options.timings), _watched(api, config, options.progress):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineBuildFailed("the builder made nothing: " + said.reason("no cause given") + _gpu_hint(options, said))
    return plan


def _told(error: ParserError) -> str:
    return f"{error.node_operator()} {error.node_name()}: {error.desc()}".strip(" :")


def _gpu_hint(options: PlanOptions, said: Log) -> str:
    # Seen of TensorRT-RTX 1.7: it compiles a refittable engine's kernels while it builds, which takes the driver.
    no_driver = options.refit and any("CUDA_SUCCESS" in message for message in said.errors)
    return " (a refittable engine is built on a machine with the GPU)" if no_driver else ""


def _strongly_typed(api: TensorRT, builder: Builder) -> Network:
    # TensorRT 11 knows no other way and may drop the flag; 10.12 needs it.
    flag = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def _configure(api: TensorRT, config: BuilderConfig, options: PlanOptions) -> None:
    if options.capability is not None:
        _aim(api, cast(RtxBuilderConfig, config), options.capability)
    if options.stream_weights:
        config.set_flag(api.BuilderFlag.WEIGHT_STREAMING)
    if options.refit:
        config.set_flag(api.BuilderFlag.REFIT)


def _aim(api: TensorRT, config: RtxBuilderConfig, capability: str) -> None:
    kinds = getattr(api, "ComputeCapability", None)
    kind = getattr(kinds, capability, None)
    if kind is None:
        raise EngineBuildFailed(f"this TensorRT cannot build for {capability}; it knows {_known(kinds)}")
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(kind, 0):
        raise EngineBuildFailed(f"this TensorRT refuses to build for {capability}")


def _known(kinds: Any) -> str:
    members = getattr(kinds, "__members__", {})
    return ", ".join(name for name in members if name.startswith("SM")) or "no other GPU than the one it runs on"


@contextlib.contextmanager
def _timed(config: BuilderConfig, timings: KeptTimings | None) -> Iterator[None]:
    """Build with the timings that are kept, and keep those that were taken; they save time and decide nothing."""
    if timings is not None:
        kept = timings.read()
        for blob in (kept, b"") if kept else (b"",):
            cache = config.create_timing_cache(blob)
            # False where another version or GPU took them.
            if cache is not None and config.set_timing_cache(cache, False):
                break
    yield
    taken = config.get_timing_cache() if timings is not None else None
    if timings is None or taken is None:
        return

    def combine(latest: bytes) -> bytes:
        other = config.create_timing_cache(latest) if latest else None
        if other is not None:
            taken.combine(other, False)
        return bytes(view(taken.serialize()))

    timings.update(combine)


@contextlib.contextmanager
def _watched(api: TensorRT, config: BuilderConfig, progress: Progress | None) -> Iterator[None]:
    """Tell `progress`; what it raises, such as a Ctrl-C, ends the build and is raised here."""
    if progress is None:
        yield
        return
    monitor = Monitor(api, progress)
    config.progress_monitor = monitor.part
    yield
    if monitor.interruption is not None:
        raise monitor.interruption
