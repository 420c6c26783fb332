"""A Wan transformer as its authors publish it to what diffusers' class takes: Wan's own, or TurboDiffusion's.

Sources: https://github.com/Wan-Video/Wan2.1, https://github.com/thu-ml/TurboDiffusion (sparse-linear attention's
`proj_l`, a linear patch embedding, int8 blocks in `-quant` files). Strict: every weight in the file is used, every
weight of the model comes from it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from video_service.families.convert.files import (
    Int8Blocks,
    NotConvertible,
    Weights,
    read_tensors,
    refuse_rest,
    take,
    with_int8_blocks,
)
from video_service.layers.wan.codec import TEMPORAL_SCALE
from video_service.layers.wan.keys import wan_parameter

SLA_MARK = "sla"
"""In the converted `transformer/config.json`: `{"topk": share of the key blocks kept}`."""
SLA_FILE = "sla.safetensors"
"""Beside the transformer's weights there; a file of its own, for diffusers' class has no such layer."""

HEAD_DIM = 128
_PATCH = (1, 2, 2)
_PROJECTION = "blocks.{}.self_attn.attn_op.local_attn.proj_l.{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerWeights:
    """One transformer."""

    config: Mapping[str, Any]
    """Of diffusers' `WanTransformer3DModel`."""
    tensors: Weights
    """By its parameters' names."""
    projections: Weights
    """Each block's `proj_l`, by `projection_names`; empty for a plain Wan."""
    dequantised: int
    """How many weights are int8 blocks, written as bfloat16."""

    @property
    def takes_image(self) -> bool:
        return self.config["in_channels"] != self.config["out_channels"]


def read_transformer(path: Path) -> TransformerWeights:
    """From one file or a folder of shards. Raises `NotConvertible` for any other, `OSError` where it is unreadable."""
    weights = with_int8_blocks(read_tensors(path))
    dequantised = sum(isinstance(weight, Int8Blocks) for weight in weights.values())
    try:
        config = _config(weights)
        with torch.device("meta"):
            model: Any = WanTransformer3DModel.from_config(config)
    except KeyError as error:
        raise NotConvertible(f"it lacks {error.args[0]}, which every Wan transformer has") from error
    except (IndexError, TypeError) as error:
        raise NotConvertible("its weights have shapes that no Wan transformer has") from error
    projections: Weights = {}
    if any(".proj_l." in name for name in weights):
        projections = {
            own: take(weights, _PROJECTION.format(block, kind), torch.Size(shape))
            for block in range(config["num_layers"])
            for own, kind, shape in zip(
                projection_names(block), ("weight", "bias"), ((HEAD_DIM, HEAD_DIM), (HEAD_DIM,)), strict=True)
        }
    tensors = {name: take(weights, wan_parameter(name), like.shape) for name, like in model.state_dict().items()}
    refuse_rest(weights)
    return TransformerWeights(config=config, tensors=tensors, projections=projections, dequantised=dequantised)


def projection_names(block: int) -> tuple[str, str]:
    """Weight and bias of a block's `proj_l` in `SLA_FILE`."""
    return f"blocks.{block}.attn1.proj_l.weight", f"blocks.{block}.attn1.proj_l.bias"


def _config(weights: Weights) -> dict[str, Any]:
    """As the shapes say. Raises `NotConvertible` for another family, `KeyError` where a weight is missing."""
    blocks = _block_count(weights)
    if blocks == 0:
        raise NotConvertible(f"it is no Wan transformer: its weights are called {', '.join(sorted(weights)[:3])}")
    voxels = 1
    for side in _PATCH:
        voxels *= side
    embedding = weights["patch_embedding.weight"].shape
    width, channels = embedding[0], embedding[1:].numel() // voxels
    outputs = weights["head.head.weight"].shape[0] // voxels
    if channels not in (outputs, outputs + TEMPORAL_SCALE + outputs):
        raise NotConvertible(f"it takes {channels} channels for {outputs}: neither Wan's text- nor its image-to-video")
    if width % HEAD_DIM:
        raise NotConvertible(f"its width of {width} is no multiple of {HEAD_DIM}")
    config = {
        "patch_size": list(_PATCH), "num_attention_heads": width // HEAD_DIM, "attention_head_dim": HEAD_DIM,
        "in_channels": channels, "out_channels": outputs, "text_dim": weights["text_embedding.0.weight"].shape[1],
        "freq_dim": weights["time_embedding.0.weight"].shape[1], "ffn_dim": weights["blocks.0.ffn.0.weight"].shape[0],
        "num_layers": blocks, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6,
        "rope_max_seq_len": 1024,
    }
    if "img_emb.proj.0.weight" in weights:  # CLIP's view of the image
        config |= {"image_dim": weights["img_emb.proj.0.weight"].shape[0], "added_kv_proj_dim": width}
    if "img_emb.emb_pos" in weights:  # of the first and the last frame
        config["pos_embed_seq_len"] = weights["img_emb.emb_pos"].shape[1]
    return config


def _block_count(names: Iterable[str]) -> int:
    """Raises `NotConvertible` where one between them is missing."""
    found = {int(match[1]) for name in names if (match := re.match(r"blocks\.(\d+)\.", name))}
    for index, block in enumerate(sorted(found)):
        if block != index:
            raise NotConvertible(f"it has blocks up to {max(found)} and lacks block {index}")
    return len(found)
