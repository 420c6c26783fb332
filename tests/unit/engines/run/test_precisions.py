"""The loop hands every engine the shapes and number formats that its graph has, in each precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.videos import VideoRequest
from engines.export.graph import DTYPES, Graph, run_in_torch
from engines.store.manifest import EngineRefused, Precision
from engines.store.store import EngineStore
from tests.unit.engines.conftest import SHAPE, open_shelf
from tests.unit.engines.run.test_serving import picture_png
from tests.unit.engines.store.test_choice import put
from video_service.engines import shelf as module
from video_service.engines.clips import ClipGraphs
from video_service.model import ModelSource
from video_service.render.generate import generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings

__all__ = ["picture_png"]


class StrictSession:
    """A graph in torch that takes what an engine of it would take, and nothing else."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.input_names, self.output_names = tuple(graph.inputs), graph.outputs
        self.runs = 0

    def zeros(self, name: str) -> torch.Tensor:
        return torch.zeros_like(self._graph.inputs[name])

    def run(
        self, inputs: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        self.runs += 1
        kinds = {name: (x.shape, x.dtype) for name, x in self._graph.inputs.items()}
        found = {name: (x.shape, x.dtype) for name, x in inputs.items()}
        if found != kinds:
            raise EngineRefused(f"{self._graph.name} takes {kinds}, not {found}")
        results = run_in_torch(self._graph, {name: inputs[name] for name in self.input_names})
        for name, x in (into or {}).items():
            assert (x.shape, x.dtype) == (results[name].shape, results[name].dtype), name
            results[name] = x.copy_(results[name])
        return results


@pytest.mark.parametrize(("precision", "guidance_scale"), [("fp16", 1.0), ("bf16", 3.0)])
def test_a_render_feeds_each_engine_exactly_what_it_takes(
    tiny_settings: VideoSettings, tiny_source: ModelSource, clips: ClipGraphs, picture_png: bytes, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, precision: Precision, guidance_scale: float,
) -> None:
    settings = tiny_settings.model_copy(update={"data_dir": tmp_path, "engine": "onnx"})
    put(
        EngineStore(settings.engine_store_dir.resolve()), "onnx", clip=str(SHAPE), revision=tiny_source.info.revision,
        precision=precision, gpu=(None, None),
    )
    graphs = clips.graphs(SHAPE, DTYPES[precision])
    sessions: dict[str, Any] = {name: StrictSession(graph) for name, graph in graphs.items()}
    monkeypatch.setattr(module, "open_sessions", lambda store, manifests, options: sessions)
    request = VideoRequest(
        prompt="zoom", image=picture_png, width=SHAPE.width, height=SHAPE.height, num_frames=SHAPE.num_frames,
        fps=16, seed=7, steps=2, guidance_scale=guidance_scale,
    )
    model = open_shelf(settings).model_for(request)
    result = generate(model, request, tmp_path / "video.mp4", silent)
    assert result.dtype == {"fp16": "float16", "bf16": "bfloat16"}[precision]
    passes = 2 if guidance_scale > 1 else 1
    assert {name: session.runs for name, session in sessions.items()} == {
        "text_encoder": passes, "vae_encoder": 1, "vae_decoder_first": 1, "vae_decoder_later": 2,
        "transformer": 2 * passes,
    }
