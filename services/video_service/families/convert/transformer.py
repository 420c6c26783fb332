"""TurboWan2.1 T2V as its authors publish it: one `.pth` of tensors, `-quant` or not, to what diffusers' class takes.

Source: https://github.com/thu-ml/TurboDiffusion. Strict: every weight in the file is used, every weight of the model
comes from it.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from video_service.layers.linear import INT8_BLOCK, dequantise_blocks
from video_service.layers.wan.keys import wan_parameter

Tensors = dict[str, torch.Tensor]

SLA_MARK = "sla"
"""In the converted `transformer/config.json`: `{"topk": share of the key blocks kept}`."""
SLA_FILE = "sla.safetensors"
"""Beside the transformer's weights there; a file of its own, for diffusers' class has no such layer."""

_HEAD_DIM = 128
_PATCH = (1, 2, 2)
_PROJECTION = "blocks.{}.self_attn.attn_op.local_attn.proj_l.{}"


class NotConvertible(ValueError):
    """A published file, or what it should go with, that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurboWanWeights:
    """One transformer."""

    config: Mapping[str, Any]
    """Of diffusers' `WanTransformer3DModel`."""
    tensors: Tensors
    """By its parameters' names."""
    projections: Tensors
    """Each block's `proj_l`, by `projection_names`."""
    dequantised: int
    """How many weights were int8 blocks, and are bfloat16 now."""


def read_turbowan(path: Path) -> TurboWanWeights:
    """Raises `NotConvertible` for any other file, `OSError` for one that cannot be read."""
    published = _read_tensors(path)
    tensors = _dequantised(published)
    try:
        config = _config(tensors)
        with torch.device("meta"):
            model: Any = WanTransformer3DModel.from_config(config)
    except KeyError as error:
        raise NotConvertible(f"it lacks {error.args[0]}, which every Wan transformer has") from error
    except (IndexError, TypeError) as error:
        raise NotConvertible("its weights have shapes that no Wan transformer has") from error
    projections = {
        own: _taken(tensors, _PROJECTION.format(block, kind), torch.Size(shape))
        for block in range(config["num_layers"])
        for own, kind, shape in zip(
            projection_names(block), ("weight", "bias"), ((_HEAD_DIM, _HEAD_DIM), (_HEAD_DIM,)), strict=True)
    }
    weights = {
        name: _taken(tensors, wan_parameter(name), like.shape) for name, like in model.state_dict().items()
    }
    if tensors:
        raise NotConvertible(f"it holds {len(tensors)} weights that the model does not know, such as {min(tensors)}")
    dequantised = sum(name.endswith(".int8_weight") for name in published)
    return TurboWanWeights(config=config, tensors=weights, projections=projections, dequantised=dequantised)


def projection_names(block: int) -> tuple[str, str]:
    """Weight and bias of a block's `proj_l` in `SLA_FILE`."""
    return f"blocks.{block}.attn1.proj_l.weight", f"blocks.{block}.attn1.proj_l.bias"


def _read_tensors(path: Path) -> Tensors:
    """The file's state dict; weights stay on disk until they are used."""
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


def _dequantised(published: Mapping[str, torch.Tensor]) -> Tensors:
    """int8 blocks and their scales as bfloat16 weights; all else as it is."""
    tensors = {name: value for name, value in published.items() if not name.endswith((".int8_weight", ".scale"))}
    scales = {name for name in published if name.endswith(".scale")}
    for name, levels in published.items():
        if not name.endswith(".int8_weight"):
            continue
        layer = name.removesuffix(".int8_weight")
        scale = published.get(f"{layer}.scale")
        shape = [-(-side // INT8_BLOCK) for side in levels.shape]
        if levels.dtype != torch.int8 or scale is None or list(scale.shape) != shape or f"{layer}.weight" in tensors:
            raise NotConvertible(f"{layer} is not one int8 weight and a scale for each of its blocks of {INT8_BLOCK}")
        tensors[f"{layer}.weight"] = dequantise_blocks(levels, scale).to(torch.bfloat16)
        scales.discard(f"{layer}.scale")
    if scales:
        raise NotConvertible(f"{min(scales)} belongs to no int8 weight")
    return tensors


def _config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """As the shapes say. Raises `NotConvertible` for another family, `KeyError` where a weight is missing."""
    blocks = _block_count(tensors)
    if blocks == 0:
        raise NotConvertible(f"it is no Wan transformer: its weights are called {', '.join(sorted(tensors)[:3])}")
    if not any(".proj_l." in name for name in tensors):
        raise NotConvertible("it has no proj_l: a plain Wan model, which has no sparse-linear attention. Its diffusers "
                             "folder renders as it is")
    embedding, voxels = tensors["patch_embedding.weight"], 1
    for side in _PATCH:
        voxels *= side
    width, channels = len(embedding), embedding[0].numel() // voxels
    outputs = len(tensors["head.head.weight"]) // voxels
    if channels != outputs:
        raise NotConvertible(f"it takes {channels} channels for {outputs}: an image-to-video model such as TurboWan2.2 "
                             "I2V. Only TurboWan2.1 text-to-video is converted")
    if width % _HEAD_DIM:
        raise NotConvertible(f"its width of {width} is no multiple of {_HEAD_DIM}")
    return {
        "patch_size": list(_PATCH), "num_attention_heads": width // _HEAD_DIM, "attention_head_dim": _HEAD_DIM,
        "in_channels": channels, "out_channels": outputs, "text_dim": tensors["text_embedding.0.weight"].shape[1],
        "freq_dim": tensors["time_embedding.0.weight"].shape[1], "ffn_dim": len(tensors["blocks.0.ffn.0.weight"]),
        "num_layers": blocks, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6,
        "rope_max_seq_len": 1024,
    }


def _block_count(names: Iterable[str]) -> int:
    """Raises `NotConvertible` where one between them is missing."""
    found = {int(match[1]) for name in names if (match := re.match(r"blocks\.(\d+)\.", name))}
    for index, block in enumerate(sorted(found)):
        if block != index:
            raise NotConvertible(f"it has blocks up to {max(found)} and lacks block {index}")
    return len(found)


def _taken(tensors: Tensors, name: str, shape: torch.Size) -> torch.Tensor:
    """Out of `tensors`, in the model's shape."""
    if name not in tensors:
        raise NotConvertible(f"it lacks {name}")
    found = tensors.pop(name)
    # A convolution over patches that do not overlap is published as a linear layer.
    fits = found.shape == shape or (name == "patch_embedding.weight" and found.shape == (shape[0], shape[1:].numel()))
    if not fits or not found.is_floating_point():
        raise NotConvertible(f"{name} is {found.dtype} {list(found.shape)}, not numbers {list(shape)}")
    return found.reshape(shape)
