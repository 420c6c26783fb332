"""Tensors in published files, read without running anything in them; weights stay on disk until they are written."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from video_service.layers.linear import INT8_BLOCK, dequantise_blocks


class NotConvertible(ValueError):
    """A published file, or what it should go with, that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Blocks:
    """A weight of a `-quant` file."""

    levels: torch.Tensor
    scale: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        return self.levels.shape

    @property
    def nbytes(self) -> int:
        """As bfloat16."""
        return 2 * self.levels.numel()

    def tensor(self) -> torch.Tensor:
        """bfloat16."""
        return dequantise_blocks(self.levels, self.scale).to(torch.bfloat16)


Weight = torch.Tensor | Int8Blocks
Weights = dict[str, Weight]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in one file, or in the shards of a folder's `diffusion_pytorch_model`.

    Raises `NotConvertible` for a file with anything else in it, `OSError` for one that cannot be read.
    """
    if path.is_dir():
        found: dict[str, torch.Tensor] = {}
        for shard in sorted(path.glob("diffusion_pytorch_model*.safetensors")):
            try:
                found |= _read_safetensors(shard)
            except NotConvertible as error:
                raise NotConvertible(f"{shard.name}: {error}") from error
        if not found:
            raise NotConvertible(f"{path} holds no diffusion_pytorch_model*.safetensors")
        return found
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise NotConvertible(f"it is damaged or truncated: {error}") from error


def _read_pth(path: Path) -> dict[str, torch.Tensor]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begins_well = file.read(2) == b"PK"
        raise NotConvertible(
            "it is truncated: its end is missing; download it again" if begins_well
            else "it is no archive as torch.save writes them; only those are read, and no pickles"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise NotConvertible(
            "it holds pickled code, which is never run: only tensors are read. Take the file from its authors"
        ) from error
    except (RuntimeError, ValueError, EOFError) as error:
        raise NotConvertible(f"it is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise NotConvertible("it holds other things than tensors by name")
    return dict(found)


def with_int8_blocks(published: Mapping[str, torch.Tensor]) -> Weights:
    """int8 weights and their scales as one `.weight` each; all else as it is."""
    weights: Weights = {name: x for name, x in published.items() if not name.endswith((".int8_weight", ".scale"))}
    scales = {name for name in published if name.endswith(".scale")}
    for name, levels in published.items():
        if not name.endswith(".int8_weight"):
            continue
        layer = name.removesuffix(".int8_weight")
        scale = published.get(f"{layer}.scale")
        shape = [-(-side // INT8_BLOCK) for side in levels.shape]
        if levels.dtype != torch.int8 or scale is None or list(scale.shape) != shape or f"{layer}.weight" in weights:
            raise NotConvertible(f"{layer} is not one int8 weight and a scale for each of its blocks of {INT8_BLOCK}")
        weights[f"{layer}.weight"] = Int8Blocks(levels=levels, scale=scale)
        scales.discard(f"{layer}.scale")
    if scales:
        raise NotConvertible(f"{min(scales)} belongs to no int8 weight")
    return weights


def take(weights: Weights, name: str, shape: torch.Size) -> Weight:
    """Out of `weights`, in the model's shape. Raises `NotConvertible`."""
    if name not in weights:
        raise NotConvertible(f"it lacks {name}")
    found = weights.pop(name)
    if isinstance(found, Int8Blocks):
        if found.shape != shape:
            raise NotConvertible(f"{name} is int8 {list(found.shape)}, not numbers {list(shape)}")
        return found
    # A convolution over patches that do not overlap is published as a linear layer by some.
    fits = found.shape == shape or (name == "patch_embedding.weight" and found.shape == (shape[0], shape[1:].numel()))
    if not fits or not found.is_floating_point():
        raise NotConvertible(f"{name} is {found.dtype} {list(found.shape)}, not numbers {list(shape)}")
    return found.reshape(shape)


def refuse_rest(weights: Mapping[str, object]) -> None:
    """Raise `NotConvertible` where something was not taken."""
    if weights:
        raise NotConvertible(f"it holds {len(weights)} weights that the model does not know, such as {min(weights)}")
