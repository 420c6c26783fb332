"""The vision tower of a Qwen-VL checkpoint, of which engines are made: read alone, without the language model."""

from typing import Any, Literal

import torch

from engines.export.graph import DTYPES, Graph, dtype_of
from engines.store.manifest import Precision, Recipe, Target
from vl_service.qwen.checkpoint import (
    FAMILIES,
    device_and_dtype,
    find_tower_revision,
    public_id,
    read_config,
)
from vl_service.qwen.engines.choice import TowerShape, tower_shape
from vl_service.qwen.engines.vision_graph import tower_graph
from vl_service.qwen.vision.tower import read_tower
from vl_service.settings import Settings

_SEED = 1234


class TowerSource:
    """A checkpoint's tower as graphs; see `engines.build.source.GraphSource`."""

    def __init__(self, settings: Settings) -> None:
        """Reads no weights. Raises `UnsupportedCheckpointError`, and transformers' `OSError`."""
        self._settings = settings
        self._config = read_config(settings)
        self._device, self._dtype = device_and_dtype(settings)
        self._towers: dict[torch.dtype, Any] = {}
        self.id, self.revision = public_id(settings.model), find_tower_revision(settings)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self._device.type == "cuda" else "cpu"

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def revision_of(self, graph: str) -> str:
        return self.revision

    def names(self, shape: TowerShape) -> tuple[str, ...]:
        return (shape.graph,)

    def shape_of(self, recipe: Recipe) -> TowerShape | None:
        """None for an engine of another checkpoint."""
        return tower_shape(recipe) if recipe.revision == self.revision else None

    def graphs(self, shape: TowerShape, dtype: torch.dtype) -> dict[str, Graph]:
        """The one graph. Raises `UnsupportedCheckpointError` for weights that are missing or do not fit."""
        if dtype not in self._towers:
            self._towers[dtype] = read_tower(self._settings, self._config, dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return {shape.graph: tower_graph(self._towers[dtype], shape.patches, shape.graph)}

    def engine_graphs(self, shape: TowerShape, precision: Precision, target: Target) -> dict[str, Graph]:
        """Raises `ValueError` for eight bits."""
        if precision not in DTYPES:
            raise ValueError(f"no layers of {FAMILIES[self._config.model_type]}'s vision tower are known to bear "
                             f"{precision}")
        return self.graphs(shape, dtype_of(precision, target))
