"""The picture as the transformer sees it: a mask and the latents of [picture, zeros...], as Wan I2V was trained."""

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d, WanResample
from PIL import Image

from video_service.load import LoadedModel
from video_service.model_card import TEMPORAL_SCALE

_CONV_REACH = 2  # a causal convolution of 3 frames sees 2 back


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
    latents = encode_still(model.vae, picture_CHW[None, :, None].to(model.device, model.vae_dtype), num_frames)
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


def encode_still(vae: AutoencoderKLWan, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Posterior mode of [picture, zeros...]: the numbers of `vae.encode`, without its repeated work.

    Causal layers see two frames back, so a layer whose input stands still from some frame on puts out a still soon
    after: each tensor here ends with the frame that repeats for the rest of the clip, and no later frame is computed.
    That spares most of the work where frames are largest (81 frames through Wan2.1: 12 of 81 at full size). Exact up
    to float rounding, since a convolution may sum in another order when it is given fewer frames.

    Args:
        picture_BCTHW: [1, 3, 1, H, W] in the VAE's dtype.
        num_frames: 4k+1, of the whole clip.

    Returns:
        [1, z_dim, k + 1, h, w] in the VAE's dtype.
    """
    encoder, total = vae.encoder, num_frames
    x = torch.cat([picture_BCTHW, torch.zeros_like(picture_BCTHW)], dim=2)[:, :, :total]
    x = encoder.conv_in(_lengthen(x, _CONV_REACH, total))
    for layer in encoder.down_blocks:
        if isinstance(layer, WanResample):
            x = layer(x)
            if layer.mode == "downsample3d":
                total = (total - 1) // 2 + 1
                x = _halve_time(layer.time_conv, x, total)
        else:
            x = layer(_lengthen(x, 2 * _CONV_REACH, total))
    x = encoder.mid_block(_lengthen(x, 2 * _CONV_REACH * len(encoder.mid_block.resnets), total))
    x = encoder.nonlinearity(encoder.norm_out(x))
    x = encoder.conv_out(_lengthen(x, _CONV_REACH, total))
    moments = vae.quant_conv(_lengthen(x, total, total))
    return moments[:, : vae.config["z_dim"]]


def _lengthen(x_BCTHW: torch.Tensor, frames: int, total: int) -> torch.Tensor:
    """Repeat the last frame `frames` times, but not past `total` frames."""
    missing = min(frames, total - x_BCTHW.shape[2])
    return torch.cat([x_BCTHW, x_BCTHW[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)


def _halve_time(time_conv: WanCausalConv3d, x_BCTHW: torch.Tensor, total: int) -> torch.Tensor:
    """The encoder's temporal stride: frame 0 as it is, then output j from input frames 2j-2, 2j-1, 2j."""
    still = min(x_BCTHW.shape[2] // 2 + 2, total)
    if still == 1:
        return x_BCTHW[:, :, :1]
    x = _lengthen(x_BCTHW, 2 * still - 1 - x_BCTHW.shape[2], 2 * total - 1)[:, :, : 2 * still - 1]
    return torch.cat([x[:, :, :1], time_conv(x)], dim=2)
