"""Weights into memory: a checkpoint in the hub layout of Wan becomes one frozen object."""

from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from video_service.catalog import ModelSource
from video_service.settings import VideoSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to render."""

    source: ModelSource
    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan
    text_encoder: UMT5EncoderModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    """Of the transformer's big matrices; `vae_dtype` and the text encoder's may differ."""
    vae_dtype: torch.dtype


def load_model(source: ModelSource, settings: VideoSettings) -> LoadedModel:
    """Read the weights onto `source.device`; of a hub id, download them first.

    Raises:
        ModelUnavailable: weights are missing, damaged or do not fit the configs.
    """
    raise NotImplementedError
