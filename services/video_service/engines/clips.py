"""The graphs of a checkpoint's clips, with seeded inputs, in any precision."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from graphs.graph import Graph
from video_service.checkpoint_folder import ModelUnavailable
from video_service.engine_store.shape import ClipShape
from video_service.engines.buildable import Buildable
from video_service.engines.families import Family, family_of, read_family

_SEED = 1234


class ClipGraphs:
    """Reads the weights once for each number format that is asked for."""

    def __init__(self, source: Buildable) -> None:
        """Raises `ModelUnavailable` for a kind of checkpoint that no family describes."""
        index = json.loads((source.folder / "model_index.json").read_text(encoding="utf-8"))
        self.family = family_of(index)
        self._source = source
        self._parts: dict[torch.dtype, dict[str, Any]] = {}

    def graphs(self, shape: ClipShape, dtype: torch.dtype) -> dict[str, Graph]:
        """Every graph by name; equal shapes give equal inputs up to the rounding of `dtype`."""
        if dtype not in self._parts:
            self._parts[dtype] = read_family(self.family, _weights(self._source, self.family), dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            graphs = self.family.graphs(self._parts[dtype], shape)
        return {graph.name: graph for graph in graphs}


def _weights(source: Buildable, family: Family) -> Path:
    if source.hub_id is None:
        return source.folder
    patterns = ["*.json", *(f"{name}/*{suffix}" for name in family.parts for suffix in (".json", ".safetensors"))]
    try:
        return Path(snapshot_download(source.hub_id, revision=source.revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelUnavailable(f"the weights of {source.hub_id} cannot be downloaded: {error}") from error
