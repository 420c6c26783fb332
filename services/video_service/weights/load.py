"""Weights into memory: a checkpoint in the hub layout of Wan becomes one frozen object."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from engine_store.revisions import base_of
from video_service.catalog import ModelSource
from video_service.layers.lean_vae import make_lean
from video_service.layers.wan_codec import Codec, TorchCodec
from video_service.settings import VideoSettings
from video_service.weights.checkpoint import WEIGHT_FOLDERS, ModelNotYetAvailable, ModelUnavailable
from video_service.weights.lora_merge import merge_lora

_TIED_KEYS = {"encoder.embed_tokens.weight", "shared.weight"}  # one tensor, stored under either name


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to render."""

    source: ModelSource
    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    codec: Codec
    """Runs the VAE; `vae` itself is asked for its config only."""
    text_encoder: UMT5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    """Of the transformer's big matrices and of its inputs."""
    vae_dtype: torch.dtype


def load_model(source: ModelSource, settings: VideoSettings) -> LoadedModel:
    """Read the weights onto `source.device`; of a hub id, download them first.

    Where an engine is forced no weights are read, for none would be computed with, and they may not even fit: the
    modules then say what their configs say and nothing else.

    Raises:
        ModelUnavailable: weights are missing, damaged or do not fit the configs, or the LoRA does not fit the weights.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device, dtype = torch.device(source.device), getattr(torch, source.dtype)
    if source.engine.forced:
        parts = _read_configs(source)
    else:
        parts = read_parts(source, dtype)
        for part in (parts.transformer, parts.vae, parts.text_encoder):
            _onto(part, device)
        make_lean(parts.vae)
    return LoadedModel(
        source=source, transformer=parts.transformer, vae=parts.vae, codec=TorchCodec(parts.vae),
        text_encoder=parts.text_encoder, tokenizer=parts.tokenizer, device=device, dtype=dtype, vae_dtype=dtype,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointParts:
    """The weights of a checkpoint in diffusers' and transformers' own modules, on the CPU."""

    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    text_encoder: UMT5EncoderModel
    tokenizer: PreTrainedTokenizerBase


def read_parts(source: ModelSource, dtype: torch.dtype) -> CheckpointParts:
    """Read the weights as `dtype`, but for those that diffusers keeps in float32; the LoRA is merged into them.

    Raises `ModelUnavailable`.
    """
    folder = _weights(source)
    try:
        parts = CheckpointParts(
            tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            text_encoder=read_part(UMT5EncoderModel, folder / "text_encoder", dtype=dtype),
            transformer=read_part(WanTransformer3DModel, folder / "transformer", torch_dtype=dtype),
            vae=read_part(AutoencoderKLWan, folder / "vae", torch_dtype=dtype),
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelUnavailable(f"the weights of {source.id} at {folder} cannot be loaded: {error}") from error
    if source.lora is not None:
        merge_lora(parts.transformer, source.lora)
    return parts


def _read_configs(source: ModelSource) -> CheckpointParts:
    """Modules without weights, on no device. Raises `ModelUnavailable`."""
    folder = _weights(source, folders=())
    try:
        with torch.device("meta"):
            return CheckpointParts(
                tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
                text_encoder=UMT5EncoderModel(UMT5Config.from_pretrained(folder / "text_encoder")),
                transformer=_empty(WanTransformer3DModel, folder / "transformer"),
                vae=_empty(AutoencoderKLWan, folder / "vae"),
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelUnavailable(f"the configs of {source.id} at {folder} cannot be loaded: {error}") from error


def _empty(kind: Any, folder: Path) -> Any:
    return kind.from_config(kind.load_config(folder, local_files_only=True))


def _weights(source: ModelSource, folders: Iterable[str] = WEIGHT_FOLDERS) -> Path:
    if source.hub_id is None:
        return source.folder
    patterns = ["*.json", "tokenizer/*", *(f"{name}/*.safetensors" for name in folders)]
    try:
        return Path(snapshot_download(source.hub_id, revision=base_of(source.revision), allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotYetAvailable(f"the weights of {source.hub_id} cannot be downloaded: {error}") from error


def _onto(part: Any, device: torch.device) -> Any:
    return part.to(device)


def read_part(kind: Any, folder: Path, **dtype: torch.dtype) -> Any:
    """Load one part strictly: the libraries only warn about weights they had to make up."""
    part, facts = kind.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **dtype
    )
    made_up = set(facts["missing_keys"]) - _TIED_KEYS
    made_up |= {str(item[0]) for item in facts["mismatched_keys"]}
    if made_up:
        raise ValueError(f"{folder.name} lacks {len(made_up)} weights, such as {min(made_up)}")
    return part.eval().requires_grad_(False)
