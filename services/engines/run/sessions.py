"""An engine from the store, opened: ONNX Runtime, TensorRT or TensorRT-RTX behind one call."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engines.export.onnx import MODEL_NAME
from engines.run.gpu import CudaGpu
from engines.run.onnxrt import OnnxSession
from engines.run.session import Session
from engines.run.trt_api import TensorRT, TensorRTUnavailable, load_tensorrt, load_tensorrt_rtx
from engines.run.trt_log import Log
from engines.run.trt_memory import share_memory
from engines.run.trt_protocol import Engine
from engines.run.trt_session import RunOptions, TrtSession, open_engine
from engines.store.cuda import cuda_capability
from engines.store.gpus import check_gpu
from engines.store.kept_bytes import KeptBytes
from engines.store.manifest import EngineRefused, Manifest, Recipe
from engines.store.store import EngineStore

PLAN_NAME = "engine.plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """How to run engines."""

    device: torch.device
    threads: int = 0
    """On a CPU; 0: all."""
    cuda_graphs: bool = False


def open_sessions(store: EngineStore, manifests: Sequence[Manifest], options: SessionOptions) -> dict[str, Session]:
    """Check every byte, then load; by graph name. They share the GPU's memory. Raises `EngineRefused`."""
    target = manifests[0].recipe.target
    if target != "onnx":
        return _open_plans(store, manifests, options)
    return {
        manifest.recipe.graph: OnnxSession(store.check_files(manifest) / MODEL_NAME, threads=options.threads)
        for manifest in manifests
    }


def load_api(recipe: Recipe) -> TensorRT:
    """The TensorRT that `recipe` is for. Raises `TensorRTUnavailable`."""
    return load_tensorrt_rtx() if recipe.target == "tensorrt-rtx" else load_tensorrt()


def _open_plans(
    store: EngineStore, manifests: Sequence[Manifest], options: SessionOptions
) -> dict[str, Session]:
    for manifest in manifests:
        check_gpu(manifest.recipe, cuda_capability() if options.device.type == "cuda" else None)
    try:
        api = load_api(manifests[0].recipe)
    except TensorRTUnavailable as error:
        raise EngineRefused(str(error)) from error
    gpu = CudaGpu(options.device)
    ordered = sorted(manifests, key=lambda manifest: _importance(manifest.recipe.graph))
    opened = {manifest.recipe.graph: open_plan(api, store, manifest) for manifest in ordered}
    streamable = {manifest.recipe.graph for manifest in ordered if manifest.streams_weights}
    streaming = share_memory({name: engine for name, (engine, _) in opened.items()}, streamable, gpu)
    sessions: dict[str, Session] = {}
    for manifest in ordered:
        name = manifest.recipe.graph
        run = RunOptions(
            cuda_graph=options.cuda_graphs and _importance(name) == 0, streams_weights=streaming[name],
            kernels=kept_kernels(store, manifest.recipe),
        )
        sessions[name] = TrtSession(api, *opened[name], gpu, run)
    return sessions


def open_plan(api: TensorRT, store: EngineStore, manifest: Manifest) -> tuple[Engine, Log]:
    """Check every byte, then load it onto this machine's GPU. Raises `EngineRefused`."""
    path = store.check_files(manifest) / PLAN_NAME
    try:
        # Mapped, for a plan holds all weights: they need not be in memory twice.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return open_engine(api, data)
    except EngineRefused as error:
        raise EngineRefused(f"{manifest.recipe.graph}: {error}") from error.__cause__


def kept_kernels(store: EngineStore, recipe: Recipe) -> KeptBytes:
    """What TensorRT-RTX compiled for an engine when it first ran."""
    return KeptBytes(store.root / "caches" / f"kernels-{recipe.key}")


def kept_timings(store: EngineStore, recipe: Recipe) -> KeptBytes:
    """How fast kernels were found to be on this kind of GPU, by builds of any engine."""
    version = recipe.libraries.get(recipe.target, "none")
    return KeptBytes(store.root / "caches" / f"timings-{recipe.target}-{version}-{recipe.capability}")


def _importance(graph: str) -> int:
    """0 for what runs at every step: the last to lose memory, and worth a CUDA graph."""
    if graph.startswith("text"):
        return 2
    return 1 if graph.startswith("vae") else 0
