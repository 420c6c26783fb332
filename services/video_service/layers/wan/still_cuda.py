"""The Wan VAE's encoder on a CUDA device for one picture: the condition of an image-to-video clip.

    fast = FastStillEncoder(vae, height, width, num_frames)           # vae in bfloat16 on the device
    latents = fast(picture)                                           # [1, 3, 1, H, W] -> [1, z, k + 1, h, w]

The posterior's mode of [picture, zeros...], as `vae.encode` has it up to rounding. A causal layer whose input stands
still puts out a still soon after, so each tensor ends with the frame that repeats for the rest of the clip, and no
later frame is computed: 12 of 81 where frames are largest. One CUDA graph, with the decoder's kernels.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanResample, WanResidualBlock

from video_service.layers.graphs import Graphed
from video_service.layers.kernels.vae import feed
from video_service.layers.wan.vae import HISTORY
from video_service.layers.wan.vae_cuda import BufferOps, Value, lay_out
from video_service.layers.wan.vae_cuda import why_not as why_no_decoder


def why_not(vae: AutoencoderKLWan) -> str | None:
    """Why this form cannot run the VAE, or None."""
    layers = vae.encoder.down_blocks
    if any(not isinstance(layer, WanResample | WanResidualBlock) for layer in layers) or vae.config["patch_size"]:
        return "the encoder has blocks that Wan2.1's has not"
    return why_no_decoder(vae)


class FastStillEncoder:
    """See the module's text. For one size and number of frames; the first call captures the graph."""

    def __init__(self, vae: AutoencoderKLWan, height: int, width: int, num_frames: int) -> None:
        """Raises `NotImplementedError` for what `why_not` names."""
        if reason := why_not(vae):
            raise NotImplementedError(reason)
        lay_out(vae)
        self._vae, self._still = vae, StillOps(num_frames)
        self._example = torch.zeros(1, 3, 1, height, width, device=vae.device, dtype=torch.bfloat16)
        self._graph: Graphed | None = None

    @torch.no_grad()
    def __call__(self, picture_BCTHW: torch.Tensor) -> torch.Tensor:
        """The latents, as the VAE makes them, in memory that the next call writes again."""
        if self._graph is None:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                self._graph = Graphed(lambda picture: encode(self._still, self._vae, picture), (self._example,))
        return self._graph(picture_BCTHW)


def encode(still: "StillOps", vae: AutoencoderKLWan, picture_BCTHW: torch.Tensor) -> torch.Tensor:
    """See `FastStillEncoder`, without a graph."""
    encoder: Any = vae.encoder
    still.total = still.num_frames
    frames = F.pad(picture_BCTHW, (0, 0, 0, 0, 0, 1))[0, :, : still.total].permute(1, 2, 3, 0).contiguous()
    x = still.convolve(encoder.conv_in, Value(raw=frames), longer=HISTORY)
    for layer in encoder.down_blocks:
        x = still.shrink(layer, x) if isinstance(layer, WanResample) else still.residual(layer, x, 2 * HISTORY)
    resnets = encoder.mid_block.resnets
    x = still.residual(resnets[0], x, 2 * HISTORY * len(resnets))
    for attention, resnet in zip(encoder.mid_block.attentions, resnets[1:], strict=True):
        x = still.residual(resnet, still.attend(attention, x), 0)
    x = still.convolve(encoder.conv_out, x, encoder.norm_out, longer=HISTORY)
    assert x.bias is not None
    moments = vae.quant_conv((x.raw + x.bias).permute(3, 0, 1, 2)[None])[:, : vae.config["z_dim"]]
    missing = still.total - moments.shape[2]
    return torch.cat([moments, moments[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2)


class StillOps(BufferOps):
    """The encoder's layers over `Value`s that end with the frame which repeats up to `total` frames."""

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.num_frames = self.total = num_frames

    def convolve(self, conv: Any, x: Value, norm: Any = None, keep: bool = False, longer: int = 0) -> Value:
        """A causal convolution over x with its last frame repeated `longer` times, but not past `total` frames."""
        buffer = self._filled(conv, x, norm, keep, longer)
        return Value(raw=_thwc(F.conv3d(_ncthw(buffer), conv.weight)), bias=conv.bias)

    def _filled(self, conv: Any, x: Value, norm: Any, keep: bool, longer: int) -> torch.Tensor:
        raw = x.raw if x.whole is None else x.whole
        given, height, width, channels = raw.shape
        frames, border = min(given + longer, self.total), conv.kernel_size[2] // 2
        if id(conv) not in self._buffers:
            # Zeros before the clip's start stay in front.
            shape = (frames + HISTORY, height + 2 * border, width + 2 * border, channels)
            self._buffers[id(conv)] = raw.new_zeros(shape)
        buffer = self._buffers[id(conv)]
        kept = feed(
            *x.parts(), None if norm is None else norm.gamma, buffer[HISTORY:], keep=keep, silu=norm is not None,
            state=0, border=border, span=frames, frames=frames,
        )
        x.whole = kept if keep else x.whole
        return buffer

    def residual(self, block: Any, x: Value, longer: int) -> Value:
        y = self.convolve(block.conv1, x, block.norm1, keep=True, longer=longer)
        y = self.convolve(block.conv2, y, block.norm2)
        return self.add(y, self.shortcut(block.conv_shortcut, x))

    def shrink(self, layer: Any, x: Value) -> Value:
        """Half the height and width, and of a 3D layer half the frames."""
        whole = torch.empty_like(x.raw)
        feed(*x.parts(), None, whole, keep=False, silu=False, state=0, border=0, span=len(whole))
        padded = F.pad(whole, (0, 0, 0, 1, 0, 1))  # below and to the right
        conv = layer.resample[1]
        small = F.conv2d(padded.permute(0, 3, 1, 2), conv.weight, stride=conv.stride).permute(0, 2, 3, 1)
        half = Value(raw=small, bias=conv.bias)
        return half if layer.mode != "downsample3d" else self._halve_time(layer.time_conv, half)

    def _halve_time(self, conv: Any, x: Value) -> Value:
        """Frame 0 as it is, then frame j from frames 2j - 2, 2j - 1 and 2j."""
        self.total = (self.total - 1) // 2 + 1
        frames = min(len(x.raw) // 2 + 2, self.total)
        wide = x.raw.new_empty(2 * frames - 1, *x.raw.shape[1:])
        feed(*x.parts(), None, wide, keep=False, silu=False, state=0, border=0, span=len(wide), frames=len(wide))
        if frames == 1:
            return Value(raw=wide)
        later = _thwc(F.conv3d(_ncthw(wide), conv.weight, stride=conv.stride)) + cast(torch.Tensor, conv.bias)
        return Value(raw=torch.cat([wide[:1], later]))


def _ncthw(x_THWC: torch.Tensor) -> torch.Tensor:
    return x_THWC.permute(3, 0, 1, 2)[None]


def _thwc(x_NCTHW: torch.Tensor) -> torch.Tensor:
    return x_NCTHW[0].permute(1, 2, 3, 0)
