"""Linear layers of a transformer kept in the int8 blocks that they were published in, and made dense again."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from video_service.layers.linear import INT8_BLOCK, Int8Linear
from video_service.weights.host import sharing_copy
from web.worker.errors import ModelUnavailable

NONE = "linear layers not in int8: the checkpoint holds no int8 blocks"


def keep_int8(transformer: nn.Module, folder: Path, dtype: torch.dtype) -> str:
    """Put the blocks in the `folder` in the place of the linear layers that they are of; returns what was done.

    A layer that is not of whole blocks stays as it is. Raises `ModelUnavailable` for blocks that are not the model's.
    """
    found: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(folder.glob("*.safetensors")):
            found |= load_file(file)
        layers = {name.removesuffix(".int8_weight") for name in found if name.endswith(".int8_weight")}
        kept = [name for name in sorted(layers) if _replaced(transformer, name, found, dtype)]
    except (OSError, SafetensorError, KeyError, AttributeError, ValueError) as error:
        raise ModelUnavailable(f"the int8 blocks in {folder} cannot be used: {error}; convert the published file again."
                               ) from error
    if not layers:
        return NONE
    left = len(layers) - len(kept)
    return f"{len(kept)} linear layers in int8" + (f", {left} not: they are not of whole blocks" if left else "")


def without_int8(transformer: Any) -> Any:
    """The same with ordinary layers in the place of int8 ones, in memory of their own, which LoRAs can change."""
    quantised = [name for name, module in transformer.named_modules() if isinstance(module, Int8Linear)]
    if not quantised:
        return transformer
    dense = sharing_copy(transformer)
    for name in quantised:
        dense.set_submodule(name, dense.get_submodule(name).dense())
    return dense


def _replaced(transformer: nn.Module, name: str, found: dict[str, torch.Tensor], dtype: torch.dtype) -> bool:
    layer: Any = transformer.get_submodule(name)
    levels, scale = found[f"{name}.int8_weight"], found[f"{name}.scale"]
    if levels.shape != layer.weight.shape or levels.dtype != torch.int8:
        raise ValueError(f"{name} is {list(layer.weight.shape)}, its blocks are {levels.dtype} {list(levels.shape)}")
    if any(side % INT8_BLOCK for side in levels.shape):
        return False
    if scale.shape != (levels.shape[0] // INT8_BLOCK, levels.shape[1] // INT8_BLOCK):
        raise ValueError(f"{name} has scales {list(scale.shape)}")
    bias = None if layer.bias is None else layer.bias.data
    transformer.set_submodule(name, Int8Linear(levels, scale.float(), bias, dtype))
    return True
