"""`python -m vl_service.qwen.engines build|list|verify`: what `stillmotion engines` runs for Qwen-VL."""

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from engines.build.command import Service, run
from engines.store.store import EngineStore
from vl_service.embedded import is_embedded
from vl_service.qwen.checkpoint import (
    UnsupportedCheckpointError,
    read_config,
    read_image_processor,
    size_limits,
)
from vl_service.qwen.engines.choice import TowerShape, say_ready, situation_of
from vl_service.qwen.engines.source import TowerSource
from vl_service.qwen.engines.vision_graph import check_slots, slots_for
from vl_service.qwen.vision.tower import empty_tower
from vl_service.settings import Settings
from web.command import run_command

DEFAULT_PATCHES = "256,1024,4096"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run(_SERVICE, arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerModel:
    """A checkpoint, and the numbers of patches that engines of its tower are for."""

    settings: Settings
    id: str
    revision: str
    device: Literal["cpu", "cuda"]

    def open(self) -> TowerSource:
        """Its graphs."""
        return TowerSource(self.settings)

    def shapes(self, options: argparse.Namespace) -> list[TowerShape]:
        """Those named, or what pictures of the sizes named take. Raises `ValueError`."""
        tower = empty_tower(read_config(self.settings))
        if options.size:
            counts = [slots_for(tower, self._grid(size)) for size in options.size.split(",")]
        else:
            counts = [_count(words) for words in options.patches.split(",")]
        for count in counts:
            check_slots(tower, count)
        return [TowerShape(count) for count in dict.fromkeys(counts)]

    def _grid(self, size: str) -> torch.Tensor:
        """Of a picture of this size as the service lays it out: [1, 3]."""
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size.strip())
        if match is None:
            raise ValueError(f"the size {size!r} is not WIDTHxHEIGHT, such as 640x480")
        processor: Any = read_image_processor(self.settings)
        limits = size_limits(processor, self.settings.image_tokens)
        picture = Image.new("RGB", (int(match[1]), int(match[2])))
        return processor(images=[picture], size=limits, return_tensors="pt")["image_grid_thw"]


def _count(words: str) -> int:
    if not words.strip().isdecimal():
        raise ValueError(f"{words!r} is no number of patches, such as 1024")
    return int(words)


def _settings(model: str | None) -> Settings:
    settings = Settings()
    if model in (None, settings.model):
        return settings
    return settings.model_copy(update={"model": model, "revision": None})  # the pinned one is of VL_MODEL


def _find(model: str | None) -> TowerModel:
    settings = _settings(model)
    if settings.model == "embedded" or is_embedded(Path(settings.model).expanduser()):
        raise UnsupportedCheckpointError(
            f"{settings.model}: of the embedded checkpoint no engines are made; --model takes a folder or hub id of a "
            "Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint")
    source = TowerSource(settings)
    return TowerModel(settings=settings, id=source.id, revision=source.revision, device=source.device)


def _store() -> EngineStore:
    return EngineStore(Settings().engine_store_dir.resolve())


def _ready(model: str | None, store: EngineStore) -> Iterable[str]:
    found = _find(model)
    return say_ready(store, situation_of(found.revision, found.device))


def _add_shape_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--patches", default=DEFAULT_PATCHES,
                         help="how many go in at once, several with commas; default %(default)s")
    command.add_argument("--size", help="instead: what pictures of WIDTHxHEIGHT take, several with commas")


_SERVICE = Service(
    prog="stillmotion engines", model_help="folder or hub id of a Qwen-VL checkpoint; default VL_MODEL",
    add_shape_options=_add_shape_options, store=_store, find=_find, ready=_ready,
    refusals=(UnsupportedCheckpointError, OSError),
)

if __name__ == "__main__":
    run_command(main)
