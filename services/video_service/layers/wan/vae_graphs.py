"""The Wan VAE as graphs without state: history comes in and goes out as tensors."""

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanUpsample, unpatchify
from torch import nn

from engines.export.copies import with_shared_weights, without_numbers
from video_service.layers.wan.codec import encode_picture, encode_still
from video_service.layers.wan.lean_vae import make_lean

HISTORY_FRAMES = 2  # a causal convolution of 3 frames sees 2 back


class CopyingUpsample(WanUpsample):
    """Nearest neighbours at scale 2 as copies: TensorRT's Resize takes no bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return twice_as_large(x)


def twice_as_large(x_NCHW: torch.Tensor) -> torch.Tensor:
    """Each pixel as 2x2 of them."""
    n, channels, height, width = x_NCHW.shape
    copies = x_NCHW[:, :, :, None, :, None].expand(n, channels, height, 2, width, 2)
    return copies.reshape(n, channels, 2 * height, 2 * width)


def export_form(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """The VAE over the same weights, in layers that export well."""
    vae = make_lean(with_shared_weights(vae))
    for module in vae.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = False
        elif isinstance(module, WanUpsample):
            if module.scale_factor != (2.0, 2.0):
                raise NotImplementedError(f"upsampling by {module.scale_factor} cannot be exported")
            module.__class__ = CopyingUpsample
    return vae


def example_history(vae: AutoencoderKLWan, latent_BCTHW: torch.Tensor) -> list[torch.Tensor]:
    """Numbers in the shape of what every convolution of the decoder remembers after two latent frames: two frames each.

    Only shapes are computed: running a decoder of full size twice would take minutes on a CPU.
    """
    # The 1x1 shortcuts are counted but remember nothing.
    return [torch.randn(x.shape).to(latent_BCTHW.dtype) for x in _remembered(vae, latent_BCTHW, 2) if x is not None]


def _remembered(vae: AutoencoderKLWan, latent_BCTHW: torch.Tensor, frames: int) -> list[torch.Tensor | None]:
    """What stands in each slot of the decoder's cache after `frames` latent frames, without numbers."""
    cache: list[torch.Tensor | str | None] = [None] * vae._cached_conv_counts["decoder"]
    shapes = without_numbers(vae)
    with torch.inference_mode():
        x = shapes.post_quant_conv(latent_BCTHW.to("meta"))
        for frame in range(frames):
            shapes.decoder(x, feat_cache=cache, feat_idx=[0], first_chunk=frame == 0)
    return [x if isinstance(x, torch.Tensor) else None for x in cache]


class FirstFrame(nn.Module):
    """The first latent frame [1, z, 1, h, w] to the still [1, 3, 1, H, W] and the history that follows from it.

    A layer that has seen nothing yet (the temporal upsampling) leaves zeros, which are not among the outputs.
    """

    def __init__(self, vae: AutoencoderKLWan, latent_BCTHW: torch.Tensor) -> None:
        super().__init__()
        self.vae = vae
        self.written = tuple(slot for slot, x in enumerate(_remembered(vae, latent_BCTHW, 1)) if x is not None)

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache: list[torch.Tensor | str | None] = [None] * self.vae._cached_conv_counts["decoder"]
        x = self.vae.post_quant_conv(latent)
        frames = self.vae.decoder(x, feat_cache=cache, feat_idx=[0], first_chunk=True)
        return _pixels(self.vae, frames), *(_two_frames(x) for x in cache if isinstance(x, torch.Tensor))


class LaterFrame(nn.Module):
    """A later latent frame and the history to 4 frames [1, 3, 4, H, W] and the history after them."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: torch.Tensor, *history: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = list(history) + [None] * (self.vae._cached_conv_counts["decoder"] - len(history))
        x = self.vae.post_quant_conv(latent)
        frames = self.vae.decoder(x, feat_cache=cache, feat_idx=[0], first_chunk=False)
        written = (x for x in cache[: len(history)] if isinstance(x, torch.Tensor))
        return _pixels(self.vae, frames), *(_two_frames(x) for x in written)


class StillEncoder(nn.Module):
    """A picture [1, 3, 1, H, W] to the latents [1, z, k + 1, h, w] of that picture and then zeros."""

    def __init__(self, vae: AutoencoderKLWan, num_frames: int) -> None:
        super().__init__()
        self.vae = vae
        self.num_frames = num_frames

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return encode_still(self.vae, picture, self.num_frames)


class PictureEncoder(nn.Module):
    """A picture [1, 3, 1, H, W] to its latents [1, z, 1, h, w]: the posterior's mode."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return encode_picture(self.vae, picture)


def _pixels(vae: AutoencoderKLWan, frames_BCTHW: torch.Tensor) -> torch.Tensor:
    """Wan2.2's small VAE decodes patches of 2x2 pixels."""
    return unpatchify(frames_BCTHW, vae.config["patch_size"] or 1)


def _two_frames(x_BCTHW: torch.Tensor) -> torch.Tensor:
    """Zeros before a history of one frame: what the convolution pads with anyway."""
    # A pad, since concatenated zeros would be folded into a constant as large as a frame.
    return F.pad(x_BCTHW, (0, 0, 0, 0, HISTORY_FRAMES - x_BCTHW.shape[2], 0))
