"""The folder that renders: written whole or not at all, a shard of weights in memory at a time."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file

from video_service.families.convert.files import Int8Blocks, NotConvertible, Weight, Weights
from video_service.families.convert.transformer import SLA_FILE, SLA_MARK, TransformerWeights
from video_service.weights.memory import INT8_FOLDER
from web.durable import sync_folder

_SHARD_BYTES = 2 * 1024**3
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model{suffix}.safetensors"
TRANSFORMERS_WEIGHTS = "model{suffix}.safetensors"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; where the block ends well it is on the disk and called `out`. Raises `NotConvertible`."""
    if out.exists():
        raise NotConvertible(f"{out} is there already")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.parent / f".{out.name}.{os.getpid()}"  # on the same disk, for the rename
    try:
        unfinished.mkdir()
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            sync_folder(path)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(out.parent)


def write_transformer(weights: TransformerWeights, folder: Path, topk: float) -> None:
    config = {"_class_name": "WanTransformer3DModel", **weights.config}
    if weights.projections:
        config[SLA_MARK] = {"topk": topk}
    write_part(folder, config, weights.tensors, DIFFUSERS_WEIGHTS)
    if weights.projections:
        save_file({name: _dense(x) for name, x in weights.projections.items()}, folder / SLA_FILE)
    blocks: Weights = {}
    for name, weight in weights.tensors.items():
        if isinstance(weight, Int8Blocks):
            layer = name.removesuffix(".weight")
            blocks |= {f"{layer}.int8_weight": weight.levels, f"{layer}.scale": weight.scale}
    if blocks:
        (folder / INT8_FOLDER).mkdir()
        _write_shards(folder / INT8_FOLDER, blocks, DIFFUSERS_WEIGHTS)


def write_part(folder: Path, config: Mapping[str, Any], weights: Weights, pattern: str) -> None:
    """A part's `config.json`, and its weights in shards that are made one after the other."""
    folder.mkdir()
    write_json(folder / "config.json", config)
    _write_shards(folder, weights, pattern)


def _write_shards(folder: Path, weights: Weights, pattern: str) -> None:
    plan = split_state_dict_into_shards_factory(
        weights, get_storage_size=lambda x: x.nbytes, filename_pattern=pattern, max_shard_size=_SHARD_BYTES)
    for file, names in plan.filename_to_tensors.items():
        save_file({name: _dense(weights[name]) for name in names}, folder / file, metadata={"format": "pt"})
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / f"{pattern.format(suffix='')}.index.json", index)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def link_part(source: Path, target: Path) -> None:
    """A part that stays as it is: linked where the disk can."""
    shutil.copytree(source, target, copy_function=_link_or_copy)


def _dense(weight: Weight) -> Any:
    return weight.tensor() if isinstance(weight, Int8Blocks) else weight.contiguous()


def _link_or_copy(source: str, target: str) -> None:
    real = Path(source).resolve()  # files of the hub's cache are symbolic links
    try:
        os.link(real, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(real, target)
