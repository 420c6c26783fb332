"""The picture as the transformer sees it: a mask and the latents of [picture, zeros...], as Wan I2V was trained."""

import numpy as np
import torch
from PIL import Image

from video_service.weights.card import TEMPORAL_SCALE
from video_service.weights.load import LoadedModel


def picture_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB picture to float32 [3, H, W] in [-1, 1]."""
    pixels_HWC = torch.from_numpy(np.array(picture, dtype=np.float32) / 255.0)
    return pixels_HWC.permute(2, 0, 1) * 2.0 - 1.0


def no_condition(model: LoadedModel, latent_frames: int, height: int, width: int) -> torch.Tensor | None:
    """What stands beside the noise without a picture: zeros [1, C, t, h, w], or None for a model without channels."""
    channels = model.transformer.config["in_channels"] - model.vae.config["z_dim"]
    if channels == 0:
        return None
    return torch.zeros(1, channels, latent_frames, height, width, device=model.device)


def encode_condition(model: LoadedModel, picture_CHW: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Mask and latents of a clip that is the picture and then zeros.

    Args:
        picture_CHW: float32 in [-1, 1].
        num_frames: 4k+1.

    Returns:
        float32 [1, 4 + z_dim, k + 1, H / scale, W / scale]: the mask is 1 on the first latent frame, the latents are
        the posterior's mode, normalised by the VAE's mean and deviation.
    """
    latents = model.codec.encode_still(picture_CHW[None, :, None].to(model.device, model.vae_dtype), num_frames)
    mean, std = latent_statistics(model)
    latents_BCTHW = (latents.float() - mean) * (1.0 / std)
    mask_BCTHW = torch.zeros_like(latents_BCTHW[:, :1]).repeat(1, TEMPORAL_SCALE, 1, 1, 1)
    mask_BCTHW[:, :, 0] = 1.0
    return torch.cat([mask_BCTHW, latents_BCTHW], dim=1)


def latent_statistics(model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the VAE's latents, float32 [1, z_dim, 1, 1, 1]."""
    config = model.vae.config
    mean = torch.tensor(config["latents_mean"], device=model.device).view(1, -1, 1, 1, 1)
    return mean, torch.tensor(config["latents_std"], device=model.device).view(1, -1, 1, 1, 1)
