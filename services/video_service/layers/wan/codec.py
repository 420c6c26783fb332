"""Pixels to latents and back, as the loop sees it, and torch's way of doing it."""

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanCausalConv3d,
    WanResample,
    patchify,
)

from video_service.layers.memo import Memo
from video_service.layers.pixels import to_levels
from video_service.layers.wan.vae import WanVaeDecoder

TEMPORAL_SCALE = 4
_STILLS_BYTES = 64 << 20
_CONV_REACH = 2  # a causal convolution of 3 frames sees 2 back


def latent_frames(num_frames: int) -> int:
    """Of a clip of 4k+1 frames: k+1, the first of which is the still."""
    return (num_frames - 1) // TEMPORAL_SCALE + 1


def latent_statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the VAE's latents, float32 [1, z_dim, 1, 1, 1]."""
    mean, std = (torch.tensor(vae.config[f"latents_{name}"], device=device) for name in ("mean", "std"))
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)


def normalised(latents_BCTHW: torch.Tensor, vae: AutoencoderKLWan) -> torch.Tensor:
    """The VAE's latents as the transformer knows them, float32."""
    mean, std = latent_statistics(vae, latents_BCTHW.device)
    return (latents_BCTHW.float() - mean) * (1.0 / std)


class Codec(Protocol):
    """What stands between pixels and latents. Latents here are as the VAE makes them, not normalised."""

    one_size: bool = False
    """Whether it takes pictures of the clip's own size alone."""

    def encode_still(self, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Posterior mode [1, z_dim, k + 1, h, w] of [picture, zeros...]; the picture is [1, 3, 1, H, W]."""
        ...

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        """Frames [1, 3, T, H, W]: first the still, then 4 for each of up to `chunk` latent frames."""
        ...

    def decode_levels(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        """The same as uint8 [B, T, H, W, 3], a latent frame at a time."""
        for frames_BCTHW in self.decode(latents_BCTHW, 1):
            yield to_levels(frames_BCTHW)


class TorchCodec(Codec):
    """The VAE's weights in torch's operators, on any device."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._vae, self._decoder = vae, WanVaeDecoder(vae)

    def encode_still(self, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        if num_frames == 1:
            return encode_picture(self._vae, picture_BCTHW)
        return encode_still(self._vae, picture_BCTHW, num_frames)

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        return self._decoder.decode(latents_BCTHW, chunk)


class KeptStills(Codec):
    """A codec that encodes a picture once: another seed or other words for it find its latents."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.one_size = codec.one_size
        self._stills = Memo(_STILLS_BYTES)

    def encode_still(self, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        pixels = picture_BCTHW.float().cpu().numpy().tobytes()
        key = (hashlib.sha256(pixels).digest(), picture_BCTHW.shape, picture_BCTHW.dtype, num_frames)
        return self._stills.get(key, lambda: self._codec.encode_still(picture_BCTHW, num_frames))

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        return self._codec.decode(latents_BCTHW, chunk)

    def decode_levels(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        return self._codec.decode_levels(latents_BCTHW)


def encode_picture(vae: AutoencoderKLWan, picture_BCTHW: torch.Tensor) -> torch.Tensor:
    """Posterior mode [1, z_dim, 1, h, w] of a picture [1, 3, 1, H, W] alone."""
    moments = vae.quant_conv(vae.encoder(patchify(picture_BCTHW, vae.config["patch_size"] or 1)))
    return moments[:, : vae.config["z_dim"]]


def encode_clip(vae: AutoencoderKLWan, frames_BCTHW: torch.Tensor) -> torch.Tensor:
    """Posterior mode [1, z_dim, k + 1, h, w] of a whole clip [1, 3, 4k + 1, H, W], four frames at a time."""
    encoded: Any = vae.encode(frames_BCTHW)
    return encoded.latent_dist.mode()


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
    # Padded: zeros to concatenate would stand in an exported graph as a constant as large as a frame.
    x = F.pad(picture_BCTHW, (0, 0, 0, 0, 0, 1))[:, :, :total]
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
