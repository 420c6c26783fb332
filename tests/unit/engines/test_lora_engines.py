"""Engines of a model with a LoRA: the transformer's is another, the rest are the same, and what is exported has it."""


import pytest
import torch

from graphs.graph import run_in_torch
from tests.tiny_lora import write_lora
from video_service.catalog import ModelSource, find_model
from video_service.engine_store.recipes import RENDER_GRAPHS, make_recipe
from video_service.engines.clips import ClipGraphs
from video_service.load import load_model
from video_service.settings import VideoSettings

from .conftest import SHAPE


@pytest.fixture(scope="module")
def lora_settings(tiny_settings: VideoSettings, tmp_path_factory: pytest.TempPathFactory) -> VideoSettings:
    folder = tmp_path_factory.mktemp("lora")
    transformer = load_model(find_model(tiny_settings), tiny_settings).transformer
    path = write_lora(folder / "lora.safetensors", transformer, "original")
    return tiny_settings.model_copy(update={"lora": path, "lora_scale": 0.8})


@pytest.fixture(scope="module")
def lora_source(lora_settings: VideoSettings) -> ModelSource:
    return find_model(lora_settings)


def test_only_the_transformer_is_another_engine_with_a_lora(tiny_source: ModelSource, lora_source: ModelSource) -> None:
    def keys(source: ModelSource) -> dict[str, str]:
        return {
            graph: make_recipe(
                graph, SHAPE, revision=source.revision, precision="fp32", target="onnx", capability=None
            ).key for graph in RENDER_GRAPHS
        }

    plain, with_lora = keys(tiny_source), keys(lora_source)
    assert {graph for graph in RENDER_GRAPHS if plain[graph] != with_lora[graph]} == {"transformer"}


def test_what_is_exported_computes_with_the_merged_weights(
    clips: ClipGraphs, lora_source: ModelSource, lora_settings: VideoSettings
) -> None:
    graphs, plain = ClipGraphs(lora_source).graphs(SHAPE, torch.float32), clips.graphs(SHAPE, torch.float32)
    graph = graphs["transformer"]
    served = load_model(lora_source, lora_settings).transformer
    inputs = graph.inputs
    found = run_in_torch(graph, inputs)["velocity"]
    with torch.inference_mode():
        expected = served(inputs["latents"], inputs["timestep"], inputs["text"], return_dict=False)[0]
    without = run_in_torch(plain["transformer"], inputs)["velocity"]
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert float((found - without).norm() / expected.norm()) > 1e-2
