"""The graphs of a checkpoint's clips, with seeded inputs, in any precision."""

import torch

from graphs.graph import Graph
from video_service.catalog import ModelSource
from video_service.engine_store.shape import ClipShape
from video_service.engines.wan import wan_graphs
from video_service.load import CheckpointParts, read_parts

_SEED = 1234


class ClipGraphs:
    """Reads the weights once for each number format that is asked for."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._parts: dict[torch.dtype, CheckpointParts] = {}

    def graphs(self, shape: ClipShape, dtype: torch.dtype) -> dict[str, Graph]:
        """Every graph by name; equal shapes give equal inputs up to the rounding of `dtype`."""
        if dtype not in self._parts:
            self._parts[dtype] = read_parts(self._source, dtype)
        parts = self._parts[dtype]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            graphs = wan_graphs(parts.transformer, parts.vae, parts.text_encoder, shape)
        return {graph.name: graph for graph in graphs}
