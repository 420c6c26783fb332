"""The kinds of checkpoint that become graphs. A new kind is one entry: its parts on disk, and a function of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from safetensors import SafetensorError
from transformers import PreTrainedModel, UMT5EncoderModel

from graphs.graph import Graph
from video_service.engines.i2vgen import i2vgen_graphs
from video_service.engines.shape import ClipShape
from video_service.engines.wan import wan_graphs, wan_ti2v_graphs
from video_service.weights.checkpoint import ModelUnavailable
from video_service.weights.load import read_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of checkpoint."""

    name: str
    parts: Mapping[str, Any]
    """Folder in the checkpoint: diffusers' or transformers' class."""
    graphs: Callable[[Mapping[str, Any], ClipShape], list[Graph]]
    """Of the parts, by folder."""
    temporal_scale: int = 4
    """Frames of the clip: this times k, plus one; with 1 any number."""
    text_tokens: int = 512


_WAN = {"text_encoder": UMT5EncoderModel, "vae": AutoencoderKLWan, "transformer": WanTransformer3DModel}

WAN = Family(name="wan", parts=_WAN, graphs=wan_graphs)
WAN_EXPERTS = Family(
    name="wan2.2-experts", parts=_WAN | {"transformer_2": WanTransformer3DModel}, graphs=wan_graphs,
)
WAN_TI2V = Family(name="wan2.2-ti2v", parts=_WAN, graphs=wan_ti2v_graphs)
I2VGEN = Family(
    name="i2vgen-xl", parts={"unet": I2VGenXLUNet}, graphs=i2vgen_graphs, temporal_scale=1, text_tokens=77,
)


def family_of(index: Mapping[str, Any]) -> Family:
    """The family of a checkpoint by its model_index.json. Raises `ModelUnavailable` for a kind with no description."""
    kind = str(index.get("_class_name"))
    if kind == "I2VGenXLPipeline":
        return I2VGEN
    if not kind.startswith("Wan"):
        raise ModelUnavailable(f"no engines are made of a {kind}")
    if index.get("expand_timesteps"):
        return WAN_TI2V
    return WAN_EXPERTS if (index.get("transformer_2") or [None])[0] else WAN


def read_family(family: Family, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """The parts of the checkpoint in `folder`, but for what diffusers keeps in float32. Raises `ModelUnavailable`."""
    try:
        return {name: _read(kind, folder / name, dtype) for name, kind in family.parts.items()}
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelUnavailable(f"the {family.name} checkpoint at {folder} cannot be loaded: {error}") from error


def _read(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    # diffusers and transformers name the argument differently.
    return read_part(kind, folder, **{"dtype" if issubclass(kind, PreTrainedModel) else "torch_dtype": dtype})
