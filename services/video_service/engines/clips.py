"""The graphs of a checkpoint's clips, with seeded inputs, in any precision."""

from dataclasses import replace
from typing import Any

import torch

from engines.export.graph import Graph, dtype_of, run_in_torch
from engines.export.quantize import KINDS, input_ranges, quantized
from engines.store.manifest import Precision, Recipe, Target
from video_service.engines.recipes import revision_of
from video_service.engines.shape import ClipShape
from video_service.families.base import Placement
from video_service.model import ModelSource
from video_service.weights.device import Device, Dtype

_SEED = 1234
_SEEN_SIDE, _SEEN_FRAMES = 128, 5
_SEEN_TIMES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of the example's, which is 500


class ClipGraphs:
    """Reads the weights once for each number format that is asked for."""

    def __init__(self, source: ModelSource) -> None:
        self.family = source.family
        self._source = source
        self._models: dict[torch.dtype, Any] = {}

    @property
    def id(self) -> str:
        return self._source.info.id

    @property
    def device(self) -> Device:
        return self._source.device

    @property
    def dtype(self) -> Dtype:
        return self._source.dtype

    def revision_of(self, graph: str) -> str:
        """A LoRA changes the weights of some graphs only."""
        return revision_of(graph, self._source.files.revision)

    def names(self, shape: ClipShape) -> tuple[str, ...]:
        return tuple(self.family.render_graphs)

    def shape_of(self, recipe: Recipe) -> ClipShape | None:
        """A clip that has the engine's graph, or None where the engine is of another checkpoint."""
        if recipe.graph not in self.family.render_graphs or recipe.revision != self.revision_of(recipe.graph):
            return None
        # A graph is fixed to some of these; the others may be anything.
        clip = {"width": 64, "height": 64, "num_frames": 1, "text_tokens": self._source.info.text_tokens}
        return ClipShape(**(clip | recipe.shape))

    def graphs(self, shape: ClipShape, dtype: torch.dtype) -> dict[str, Graph]:
        """Every graph by name, the LoRA in it; equal shapes give equal inputs up to the rounding of `dtype`.

        Raises `ModelUnavailable`.
        """
        if dtype not in self._models:
            placement = Placement(device=torch.device("cpu"), dtype=dtype)
            self._models[dtype] = self.family.load(self._source.files, placement)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            graphs = self.family.graphs(self._models[dtype], shape)
        return {graph.name: graph for graph in graphs}

    def engine_graphs(self, shape: ClipShape, precision: Precision, target: Target) -> dict[str, Graph]:
        """The graphs as an engine has them: with eight-bit layers where `precision` asks for them."""
        dtype = dtype_of(precision, target)
        graphs = self.graphs(shape, dtype)
        if precision not in KINDS:
            return graphs
        if not any(graph.eight_bits for graph in graphs.values()):
            raise ValueError(f"no layers of {self.family.name} are known to bear {precision}")
        seen = self._ranges(shape, dtype)
        return {
            name: quantized(graph, KINDS[precision], seen[name]) if graph.eight_bits else graph
            for name, graph in graphs.items()
        }

    def _ranges(self, shape: ClipShape, dtype: torch.dtype) -> dict[str, dict[str, float]]:
        """What goes into each layer, from a clip small enough to compute anywhere: magnitudes depend little on size."""
        small = replace(
            shape, width=min(shape.width, _SEEN_SIDE), height=min(shape.height, _SEEN_SIDE),
            num_frames=min(shape.num_frames, _SEEN_FRAMES),
        )
        graphs = self.graphs(small, dtype)
        text = graphs["text_encoder"]
        states = run_in_torch(text, text.inputs)["states"]
        found: dict[str, dict[str, float]] = {}
        for name, graph in graphs.items():
            if graph.eight_bits:
                given = dict(graph.inputs) | {"text": states.to(dtype)}
                examples = [given | {"timestep": graph.inputs["timestep"] * of} for of in _SEEN_TIMES]
                found[name] = input_ranges(graph, examples)
        return found

