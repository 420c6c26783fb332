"""Runs diffusers' causal Wan VAE on a whole clip in one call, for training.

`AutoencoderKLWan` encodes and decodes chunk by chunk through a feature cache; without a cache its temporal resampling
is left out. The two functions here give the same values without a cache (training/tests/test_whole_clip.py): the
first frame passes temporal resampling untouched, and later frames see a zero history that excludes it when
upsampling. A single frame sees zeros before it, so the last temporal tap of each kernel is a plain 2-D convolution.
"""

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d, WanResample

_chunked_resample = WanResample.forward
_padded_conv = WanCausalConv3d.forward


def _resample(self: WanResample, x: torch.Tensor, feat_cache=None, feat_idx=(0,)) -> torch.Tensor:
    if feat_cache is not None:
        return _chunked_resample(self, x, feat_cache, feat_idx)
    b, c, t, h, w = x.shape
    if self.mode == "upsample3d" and t > 1:
        rest = self.time_conv(x[:, :, 1:])
        rest = rest.reshape(b, 2, c, t - 1, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * (t - 1), h, w)
        x = torch.cat([x[:, :, :1], rest], dim=2)
    t = x.shape[2]
    x = self.resample(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    x = x.view(b, t, *x.shape[1:]).permute(0, 2, 1, 3, 4)
    if self.mode == "downsample3d" and t > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)
    return x


def _conv(self: WanCausalConv3d, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
    if cache_x is not None or x.shape[2] > 1:
        return _padded_conv(self, x, cache_x)
    padding = self._padding[0]
    return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=padding).unsqueeze(2)


def enable_whole_clip() -> None:
    """Patch diffusers' classes in this process."""
    WanResample.forward = _resample
    WanCausalConv3d.forward = _conv


def encode(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Video [B, 3, 4k+1, H, W] in [-1, 1] to raw moments [B, 2·z, k+1, H/s, W/s] (mean, log-variance)."""
    return vae.quant_conv(vae.encoder(video))


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, z, k+1, h, w] to video [B, 3, 4k+1, H, W], not clamped."""
    return vae.decoder(vae.post_quant_conv(latents))
