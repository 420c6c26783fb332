"""The Wan VAE as graphs without state: history comes in and goes out as tensors."""

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanUpsample
from torch import nn

from engines.export.copies import with_shared_weights, without_numbers
from video_service.layers.wan.codec import encode_picture, encode_still
from video_service.layers.wan.lean_vae import make_lean
from video_service.layers.wan.vae import TorchOps, WanVaeDecoder


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
    """Numbers in the shape of what every convolution of the decoder remembers: two frames each.

    Only shapes are computed: running a decoder of full size would take minutes on a CPU.
    """
    return [torch.randn(x.shape).to(latent_BCTHW.dtype) for x in _first_step(vae, latent_BCTHW).left]


def _first_step(vae: AutoencoderKLWan, latent_BCTHW: torch.Tensor) -> TorchOps:
    """What a clip's first latent frame leaves, without numbers."""
    with torch.inference_mode():
        return WanVaeDecoder(without_numbers(vae)).step(latent_BCTHW.to("meta"), ())[1]


class FirstFrame(nn.Module):
    """The first latent frame [1, z, 1, h, w] to the still [1, 3, 1, H, W] and the history that follows from it.

    A layer that has seen nothing yet (the temporal upsampling) leaves zeros, which are not among the outputs.
    """

    def __init__(self, vae: AutoencoderKLWan, latent_BCTHW: torch.Tensor) -> None:
        super().__init__()
        self.decoder = WanVaeDecoder(vae)
        left = _first_step(vae, latent_BCTHW)
        self.written = tuple(slot for slot in range(len(left.left)) if slot not in left.unseen)

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        frames, *history = self.decoder(latent)
        return frames, *(history[slot] for slot in self.written)


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
