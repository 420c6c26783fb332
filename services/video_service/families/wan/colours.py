"""What the latents of a Wan VAE are in red, green and blue."""

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from video_service.families.base import Placement
from video_service.layers.pixels import colour_card, fitted_colours
from video_service.layers.wan.codec import Codec, normalised

CARD = (16, 16)  # latents, of the picture that they are compared with


@torch.inference_mode()
def learned_colours(
    codec: Codec, vae: AutoencoderKLWan, placement: Placement, size: Sequence[int] = CARD
) -> torch.Tensor:
    """See `fitted_colours`, of latents as the transformer knows them, on a card of `size` latents."""
    height, width = (side * vae.config["scale_factor_spatial"] for side in size)
    card = colour_card(height, width).to(placement.device, placement.dtype)
    return fitted_colours(normalised(codec.encode_still(card, 1), vae)[:, :, 0], card[:, :, 0])
