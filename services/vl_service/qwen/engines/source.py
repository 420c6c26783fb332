"""The vision tower of a Qwen-VL checkpoint, of which engines are made: read alone, without the language model."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from engines.export.graph import DTYPES, Graph, dtype_of
from engines.store.manifest import Precision, Recipe, Target
from vl_service.qwen.checkpoint import (
    FAMILIES,
    UnsupportedCheckpointError,
    device_and_dtype,
    find_file,
    find_revision,
    public_id,
    read_config,
)
from vl_service.qwen.engines.choice import TowerShape, tower_shape
from vl_service.qwen.engines.vision_graph import tower_graph
from vl_service.settings import Settings

_SEED = 1234
_PREFIXES = ("visual.", "model.visual.")  # of Qwen2-VL's first checkpoints, and of all since
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


class TowerSource:
    """A checkpoint's tower as graphs; see `engines.build.source.GraphSource`."""

    def __init__(self, settings: Settings) -> None:
        """Reads no weights. Raises `UnsupportedCheckpointError`, and transformers' `OSError`."""
        self._settings = settings
        self._config = read_config(settings)
        self._device, self._dtype = device_and_dtype(settings)
        self._towers: dict[torch.dtype, Any] = {}
        self.id, self.revision = public_id(settings.model), find_revision(settings)

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


def empty_tower(config: Any) -> Any:
    """The tower without weights or memory: enough to lay pictures out."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config).model.visual


def read_tower(settings: Settings, config: Any, dtype: torch.dtype) -> Any:
    """The tower on the CPU. Raises `UnsupportedCheckpointError` for weights that are missing or do not fit."""
    with no_init_weights():  # random numbers for 700 million of them take a minute
        # Made as transformers makes it: tables that are no weights stay in float32.
        tower = type(empty_tower(config))._from_config(config.vision_config, dtype=dtype)
    try:
        tower.load_state_dict(_read_weights(settings))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UnsupportedCheckpointError(f"the vision tower of {settings.model} cannot be read: {error}") from error
    return tower.eval().requires_grad_(False)


def _read_weights(settings: Settings) -> dict[str, torch.Tensor]:
    """By their names in the tower. Files that hold none of them are not opened, nor downloaded."""
    index = find_file(settings, _INDEX)
    places = {} if index is None else json.loads(Path(index).read_text("utf-8"))["weight_map"]
    names = {file for key, file in places.items() if key.startswith(_PREFIXES)} or {_WEIGHTS}
    weights: dict[str, torch.Tensor] = {}
    for name in sorted(names):
        path = find_file(settings, name)
        if path is None:
            raise ValueError(f"it has no {name}")
        with safe_open(path, framework="pt") as file:
            keys = [key for key in file.keys() if key.startswith(_PREFIXES)]  # noqa: SIM118, for it is no mapping
            weights |= {key.partition("visual.")[2]: file.get_tensor(key) for key in keys}
    return weights
