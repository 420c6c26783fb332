"""The Wan VAE's decoder with its history in the open: a latent frame and the history in, frames and the history out.

    decoder = WanVaeDecoder(vae)
    frames, *history = decoder(latents[:, :, :1])                 # the first latent frame: one frame
    frames, *history = decoder(latents[:, :, 1:2], *history)      # every later one: four frames

Every history is two frames [B, C, 2, H, W], before the clip's start zeros: so there are two graphs, first and later,
without branches on what was seen. diffusers keeps 33 slots that hold a tensor of one or two frames, nothing or the
word "Rep"; the frames are the same. `decode_step` tells the network once, over `ops`: in torch here, for any device,
compiler or exporter; in buffers and kernels in `vae_cuda`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify
from torch import nn

HISTORY = 2


def decode_step(ops: Any, decoder: Any, x: Any, first: bool) -> Any:
    """One latent frame through diffusers' `WanDecoder3d`, layer by layer, each run by `ops`."""
    x = ops.convolve(decoder.conv_in, x)
    resnets, attentions = decoder.mid_block.resnets, decoder.mid_block.attentions
    x = _residual(ops, resnets[0], x)
    for attention, resnet in zip(attentions, resnets[1:], strict=True):
        x = _residual(ops, resnet, ops.attend(attention, x))
    for block in decoder.up_blocks:
        entered = x
        for resnet in block.resnets:
            x = _residual(ops, resnet, x)
        if (upsampler := _upsampler(block)) is not None:
            x = ops.upsample(upsampler, x, first)
        if getattr(block, "avg_shortcut", None) is not None:
            x = ops.add(x, ops.duplicate(block.avg_shortcut, entered, first))
    return ops.convolve(decoder.conv_out, x, decoder.norm_out)


def _residual(ops: Any, block: Any, x: Any) -> Any:
    y = ops.convolve(block.conv1, x, block.norm1, keep=True)
    y = ops.convolve(block.conv2, y, block.norm2)
    return ops.add(y, ops.shortcut(block.conv_shortcut, x))


def _upsampler(block: Any) -> Any:
    several = getattr(block, "upsamplers", None)
    return several[0] if several is not None else getattr(block, "upsampler", None)


class TorchOps:
    """The layers in torch on [B, C, T, H, W]; `history` of this step comes in, `left` goes out."""

    def __init__(self, history: Sequence[torch.Tensor]) -> None:
        self._history = iter(history)
        self._first = not history
        self.left: list[torch.Tensor] = []
        self.unseen: list[int] = []
        """Which of `left` the clip's first frame does not reach: they are zeros."""

    def convolve(self, conv: Any, x: torch.Tensor, norm: Any = None, keep: bool = False) -> torch.Tensor:
        return self._causal(conv, x if norm is None else F.silu(norm(x), inplace=True))  # nothing else reads the norm

    def _causal(self, conv: Any, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (0, 0, 0, 0, HISTORY, 0)) if self._first else torch.cat([next(self._history), x], dim=2)
        self.left.append(x[:, :, -HISTORY:])
        _, side_W, _, side_H, _, _ = (int(side) for side in conv._padding)
        return F.conv3d(x, conv.weight, conv.bias, conv.stride, (0, side_H, side_W))

    def shortcut(self, conv: Any, x: torch.Tensor) -> torch.Tensor:
        return conv(x)

    def attend(self, attention: Any, x: torch.Tensor) -> torch.Tensor:
        return attention(x)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def duplicate(self, shortcut: Any, x: torch.Tensor, first: bool) -> torch.Tensor:
        return shortcut(x, first_chunk=first)

    def upsample(self, layer: Any, x: torch.Tensor, first: bool) -> torch.Tensor:
        if layer.mode == "upsample3d" and first:
            # The first frame stands alone: it is not among what the temporal convolution has seen.
            self.unseen.append(len(self.left))
            self.left.append(x.new_zeros(1).expand(*x.shape[:2], HISTORY, *x.shape[3:]))
        elif layer.mode == "upsample3d":
            x = self._causal(layer.time_conv, x).unflatten(1, (2, -1))
            x = x.transpose(1, 2).transpose(2, 3).flatten(2, 3)
        frames = x.shape[2]
        x = layer.resample(x.transpose(1, 2).flatten(0, 1))
        return x.unflatten(0, (-1, frames)).transpose(1, 2)


class WanVaeDecoder(nn.Module):
    """See the module's text. Shares the weights of `vae`."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        self.patch_size: int = vae.config["patch_size"] or 1

    def forward(self, latents_BCTHW: torch.Tensor, *history: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Unclamped frames [B, 3, T', H, W] of one latent frame (or several, but the first one), and the history.

        Without `history` the clip begins.
        """
        frames, ops = self.step(latents_BCTHW, history)
        return frames, *ops.left

    def step(self, latents_BCTHW: torch.Tensor, history: Sequence[torch.Tensor]) -> tuple[torch.Tensor, TorchOps]:
        """As `forward`; the history is in what computed it."""
        ops = TorchOps(history)
        x = decode_step(ops, self.decoder, self.post_quant_conv(latents_BCTHW), first=not history)
        return unpatchify(x, self.patch_size), ops

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int = 1) -> Iterator[torch.Tensor]:
        """Unclamped frames of a clip: of its first latent frame, then of up to `chunk` at once; latents as the VAE
        makes them."""
        first, later = latents_BCTHW[:, :, :1], latents_BCTHW[:, :, 1:]
        history: Sequence[torch.Tensor] = ()
        for latents in (first, *(later.split(chunk, dim=2) if later.shape[2] else ())):
            frames, *history = self(latents, *history)
            yield frames
