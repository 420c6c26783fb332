"""An engine from the store, opened: ONNX Runtime, TensorRT or TensorRT-RTX behind one call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch

from graphs.export import MODEL_NAME
from video_service.engine_store.choice import EngineSet
from video_service.engine_store.manifest import EngineRefused, Manifest, Recipe
from video_service.engine_store.store import EngineStore
from video_service.engines.onnxrt import OnnxSession
from video_service.engines.tensorrt import TrtSession
from video_service.engines.trt_api import TensorRT, TensorRTUnavailable, load_tensorrt, load_tensorrt_rtx

PLAN_NAME = "engine.plan"


class Session(Protocol):
    """One loaded engine."""

    input_names: tuple[str, ...]

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All outputs by name, each in memory of its own. Raises `EngineRefused`."""
        ...

    def zeros(self, name: str) -> torch.Tensor:
        """Zeros that fit the input `name`."""
        ...


def open_set(store: EngineStore, engines: EngineSet, device: torch.device, threads: int) -> dict[str, Session]:
    """Every engine of one clip shape, by graph name. Raises `EngineRefused`."""
    return {
        name: open_session(store, store.usable(recipe), device, threads) for name, recipe in engines.recipes.items()
    }


def open_session(store: EngineStore, manifest: Manifest, device: torch.device, threads: int) -> Session:
    """Check every byte, then load. Raises `EngineRefused`."""
    folder = store.check_files(manifest)
    if manifest.recipe.target == "onnx":
        return OnnxSession(folder / MODEL_NAME, threads=threads)
    return _open_plan(manifest.recipe, folder / PLAN_NAME, device)


def load_api(recipe: Recipe) -> TensorRT:
    """The TensorRT that `recipe` is for. Raises `TensorRTUnavailable`."""
    return load_tensorrt_rtx() if recipe.target == "tensorrt-rtx" else load_tensorrt()


def _open_plan(recipe: Recipe, path: Path, device: torch.device) -> Session:
    if device.type != "cuda":
        raise EngineRefused(f"{recipe.target} engines run on a GPU, and the device is {device.type}")
    try:
        return TrtSession(load_api(recipe), path.read_bytes(), device)
    except TensorRTUnavailable as error:
        raise EngineRefused(str(error)) from error
