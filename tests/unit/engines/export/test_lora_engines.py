"""Engines of a model with a LoRA: the transformer's is another, the rest are the same, and what is exported has it."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from contracts.videos import VideoRequest
from engines.build.build import Order, build, verify
from engines.export.graph import run_in_torch
from engines.export.onnx import MODEL_NAME, export_graph
from engines.export.weights import fingerprint
from engines.store.store import EngineStore
from tests.checkpoints.tiny_lora import write_lora
from tests.unit.engines.conftest import SHAPE, open_shelf
from tests.unit.video_service.conftest import network
from video_service.engines.clips import ClipGraphs
from video_service.engines.recipes import clip_recipe
from video_service.families.wan.files import WAN_GRAPHS
from video_service.model import ModelSource, find_model, load_model
from video_service.render.generate import generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings


@pytest.fixture(scope="module")
def lora_settings(tiny_settings: VideoSettings, tmp_path_factory: pytest.TempPathFactory) -> VideoSettings:
    return with_lora(tiny_settings, tmp_path_factory.mktemp("lora"))


def with_lora(settings: VideoSettings, folder: Path) -> VideoSettings:
    transformer = network(load_model(find_model(settings), settings))
    path = write_lora(folder / "lora.safetensors", transformer, "original")
    return settings.model_copy(update={"lora": path, "lora_scale": 0.8})


@pytest.fixture(scope="module")
def lora_source(lora_settings: VideoSettings) -> ModelSource:
    return find_model(lora_settings)


def test_only_the_transformer_is_another_engine_with_a_lora(tiny_source: ModelSource, lora_source: ModelSource) -> None:
    def keys(source: ModelSource) -> dict[str, str]:
        return {
            graph: clip_recipe(
                graph, SHAPE, revision=source.info.revision, precision="fp32", target="onnx", capability=None
            ).key for graph in WAN_GRAPHS
        }

    plain, with_lora = keys(tiny_source), keys(lora_source)
    assert {graph for graph in WAN_GRAPHS if plain[graph] != with_lora[graph]} == {"transformer"}


def test_what_is_exported_computes_with_the_merged_weights(
    clips: ClipGraphs, lora_source: ModelSource, lora_settings: VideoSettings
) -> None:
    graphs, plain = ClipGraphs(lora_source).graphs(SHAPE, torch.float32), clips.graphs(SHAPE, torch.float32)
    graph = graphs["transformer"]
    served = network(load_model(lora_source, lora_settings))
    inputs = graph.inputs
    found = run_in_torch(graph, inputs)["velocity"]
    with torch.inference_mode():
        expected = served(inputs["latents"], inputs["timestep"], inputs["text"], return_dict=False)[0]
    without = run_in_torch(plain["transformer"], inputs)["velocity"]
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert float((found - without).norm() / expected.norm()) > 1e-2


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_exported_transformer_differs_by_the_matrices_of_the_lora_alone(
    tiny_settings: VideoSettings, tmp_path: Path, dtype: torch.dtype
) -> None:
    """What refitting rests on: names and nodes are the same with and without it."""
    found = []
    for settings in (tiny_settings, with_lora(tiny_settings, tmp_path)):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        export_graph(ClipGraphs(find_model(settings)).graphs(SHAPE, dtype)["transformer"], folder, attention="plain")
        found.append(fingerprint(folder / MODEL_NAME))
    changed = found[0].changed(found[1])
    assert changed is not None
    assert len(changed) == 10  # its linear layers


@pytest.mark.full
def test_a_clip_on_engines_with_a_lora_is_torchs_and_only_the_transformer_is_built(
    built_store: EngineStore, lora_settings: VideoSettings, lora_source: ModelSource, order: Order, tmp_path: Path
) -> None:
    store = EngineStore(Path(shutil.copytree(built_store.root, tmp_path / "data" / "engines")))
    said: list[str] = []
    manifests = build(ClipGraphs(lora_source), store, order, said.append)
    assert sum("already built" in line for line in said) == len(WAN_GRAPHS) - 1
    assert {found.state for found in verify(ClipGraphs(lora_source), store, manifests, said.append)} == {"verified"}
    settings = lora_settings.model_copy(update={"engine": "onnx", "data_dir": tmp_path / "data"})
    request = VideoRequest(
        prompt="zoom", width=SHAPE.width, height=SHAPE.height, num_frames=SHAPE.num_frames, fps=16, seed=7, steps=2
    )
    model = open_shelf(settings).model_for(request)
    found = generate(model, request, tmp_path / "onnx.mp4", silent)
    true = generate(load_model(lora_source, lora_settings), request, tmp_path / "torch.mp4", silent)
    assert (found.engine, found.revision) == ("onnx-cpu", true.revision)
    difference = frames_of(tmp_path / "onnx.mp4") - frames_of(tmp_path / "torch.mp4")
    assert 10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9)) > 40


def frames_of(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)
