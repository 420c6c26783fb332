"""A tiny checkpoint, and its engines for one clip shape, built once by the real builder."""

import warnings
from pathlib import Path

import pytest
import torch

from engines.build.build import Order, build, verify
from engines.store.manifest import Manifest
from engines.store.store import EngineStore
from tests.checkpoints.tiny_wan import save_tiny_wan
from video_service.engines.clips import ClipGraphs
from video_service.engines.shape import ClipShape
from video_service.engines.shelf import EngineShelf
from video_service.model import ModelSource, find_model, load_model
from video_service.settings import VideoSettings

SHAPE = ClipShape(width=96, height=64, num_frames=9, text_tokens=16)


def open_shelf(settings: VideoSettings) -> EngineShelf:
    """The model with the engines that were chosen for it."""
    source = find_model(settings)
    return EngineShelf(load_model(source, settings), source.engine, settings)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from a second thread and lose much when the other cores are busy."""
    torch.set_num_threads(1)
    # torch.export warns about its own use of deprecated pytree names.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of layer once or so: an export is paid by the layer."""
    return save_tiny_wan(tmp_path_factory.mktemp("engines") / "wan", shallow=True)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def tiny_settings(tiny_folder: Path, data_dir: Path) -> VideoSettings:
    return VideoSettings(
        model=str(tiny_folder), device="cpu", dtype="float32", threads=1, data_dir=data_dir, engine="torch"
    )


@pytest.fixture(scope="session")
def tiny_source(tiny_settings: VideoSettings) -> ModelSource:
    return find_model(tiny_settings)


@pytest.fixture(scope="session")
def clips(tiny_source: ModelSource) -> ClipGraphs:
    return ClipGraphs(tiny_source)


@pytest.fixture(scope="session")
def order() -> Order:
    return Order(shape=SHAPE, target="onnx", precision="fp32", capabilities=(None,))


@pytest.fixture(scope="session")
def built_store(tiny_settings: VideoSettings, tiny_source: ModelSource, order: Order) -> EngineStore:
    """Every fp32 ONNX engine of the clip, verified. Tests that change it use `own_store`."""
    store = EngineStore(tiny_settings.engine_store_dir)
    manifests: list[Manifest] = build(ClipGraphs(tiny_source), store, order, print)
    verify(ClipGraphs(tiny_source), store, manifests, print)
    return store
