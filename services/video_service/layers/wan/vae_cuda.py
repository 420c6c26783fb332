"""The Wan VAE's decoder on a CUDA device: buffers that hold the history, one CUDA graph a latent frame, bytes out.

    fast = FastVaeDecoder(vae, latents.shape[3], latents.shape[4])       # vae in bfloat16 on the device
    for frames in fast.decode(latents):                                  # [1, z, k + 1, h, w] as the VAE makes them
        ...                                                              # CPU uint8 [T, H, W, 3], 1 and then 4 frames

The same arithmetic as `WanVaeDecoder` up to rounding (sums, norm and SiLU round once instead of five times). Sums,
norms and SiLU are one pass that writes straight into the next convolution's padded input; biases are added there too,
where cuDNN would make a pass of its own. Frames become bytes on the device and travel while the next ones decode.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, unpatchify
from torch import nn

from video_service.layers.frames import ToHost, to_bytes, to_yuv420
from video_service.layers.graphs import Graphed
from video_service.layers.kernels.vae import enlarge, feed
from video_service.layers.wan.bands import Bands
from video_service.layers.wan.vae import HISTORY, decode_step

Told = Callable[[torch.Tensor, bool], AbstractContextManager[None]]


def why_not(vae: AutoencoderKLWan) -> str | None:
    """Why this form cannot run the VAE, or None."""
    weight = vae.decoder.conv_in.weight
    if not weight.is_cuda or weight.dtype != torch.bfloat16:
        return "the VAE is not in bfloat16 on a CUDA device"
    return None


@dataclass(slots=True)
class Value:
    """A tensor [T, H, W, C] that may still be a sum: raw + bias + other."""

    raw: torch.Tensor
    bias: torch.Tensor | None = None
    other: "Value | None" = None
    whole: torch.Tensor | None = None

    def parts(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """The summands: a tensor and its bias, twice."""
        if self.whole is not None:
            return self.whole, None, None, None
        if self.other is None:
            return self.raw, self.bias, None, None
        other, bias, *more = self.other.parts()
        assert more == [None, None]  # a sum of sums is computed before it is added to
        return self.raw, self.bias, other, bias


class BufferOps:
    """`decode_step`'s operations on `Value`s, with each convolution's input kept from one latent frame to the next.

    A later latent frame must pass once, whatever it holds, before a first one: it shows how long the buffers are.
    """

    def __init__(self, bands: Bands | None = None) -> None:
        """With `bands` all is a rank's rows."""
        self.first = False
        self._bands = bands
        self._buffers: dict[int, torch.Tensor] = {}

    def convolve(self, conv: Any, x: Value, norm: Any = None, keep: bool = False) -> Value:
        return Value(raw=self._causal(conv, x, norm, keep), bias=conv.bias)

    def _causal(self, conv: Any, x: Value, norm: Any = None, keep: bool = False) -> torch.Tensor:
        border = conv.kernel_size[2] // 2
        buffer = self._buffer(conv, x, border)
        span = len(buffer) - HISTORY
        state = 2 if self.first else 1
        kept = feed(
            *x.parts(), None if norm is None else norm.gamma, buffer, keep=keep and x.whole is None,
            silu=norm is not None, state=state, border=border, span=span,
        )
        x.whole = kept if kept is not None else x.whole
        if self._bands is not None and border:
            self._bands.lend(buffer)  # the history's too: it has moved
        seen = buffer[span - 1 :] if self.first else buffer
        out = F.conv3d(seen.permute(3, 0, 1, 2)[None], conv.weight)
        return out[0].permute(1, 2, 3, 0)

    def _buffer(self, conv: Any, x: Value, border: int) -> torch.Tensor:
        if id(conv) not in self._buffers:
            frames, height, width, channels = x.raw.shape
            shape = (frames + HISTORY, height + 2 * border, width + 2 * border, channels)
            self._buffers[id(conv)] = x.raw.new_zeros(shape)
        return self._buffers[id(conv)]

    def shortcut(self, conv: Any, x: Value) -> Value:
        if isinstance(conv, nn.Identity):
            return x
        assert x.whole is not None
        return Value(raw=F.linear(x.whole, conv.weight.flatten(1)), bias=conv.bias)

    def add(self, x: Value, y: Value) -> Value:
        return Value(raw=x.raw, bias=x.bias, other=y)

    def attend(self, attention: Any, x: Value) -> Value:
        frames, height, width, channels = x.raw.shape
        normed = torch.empty_like(x.raw)
        x.whole = feed(
            *x.parts(), attention.norm.gamma, normed, keep=True, silu=False, state=0, border=0, span=frames)
        qkv = F.linear(normed.view(frames, 1, -1, channels), attention.to_qkv.weight.flatten(1), attention.to_qkv.bias)
        q, k, v = qkv[:, 0].chunk(3, dim=-1)
        if self._bands is not None:
            k, v = self._bands.whole(torch.cat([k, v], dim=-1), 1).chunk(2, dim=-1)
        out = _wide_attention(q, k, v)
        out = F.linear(out.reshape(frames, height, width, channels), attention.proj.weight.flatten(1))
        return Value(raw=out, bias=attention.proj.bias, other=x)

    def duplicate(self, shortcut: Any, x: Value, first: bool) -> Value:
        assert x.whole is not None
        doubled = shortcut(x.whole.permute(3, 0, 1, 2)[None], first_chunk=first)
        return Value(raw=doubled[0].permute(1, 2, 3, 0).contiguous())

    def upsample(self, layer: Any, x: Value, first: bool) -> Value:
        if layer.mode == "upsample3d" and first:
            self._buffers[id(layer.time_conv)].zero_()
        if layer.mode == "upsample3d" and not first:
            large = enlarge(self._causal(layer.time_conv, x), layer.time_conv.bias, None, None, 2)
        else:
            large = enlarge(*x.parts(), 1)
        conv = layer.resample[1]
        padding = conv.padding
        if self._bands is not None:
            large = F.pad(large, (0, 0, 0, 0, 1, 1))
            self._bands.lend(large)
            padding = (0, padding[1])
        out = F.conv2d(large.permute(0, 3, 1, 2), conv.weight, padding=padding)
        return Value(raw=out.permute(0, 2, 3, 1), bias=conv.bias)


def _wide_attention(q_BLC: torch.Tensor, k_BLC: torch.Tensor, v_BLC: torch.Tensor) -> torch.Tensor:
    """One head of 384 channels, too wide for the flash kernels: as two products, with the scores in float32.

    Frame by frame: at 720p the scores of one are 0.8 GiB, and those of a whole clip's 21 were 16.
    """
    if not q_BLC.is_cuda:
        return F.scaled_dot_product_attention(q_BLC, k_BLC, v_BLC)
    out, scale = torch.empty_like(q_BLC), q_BLC.shape[2] ** -0.5
    for frame in range(len(q_BLC)):
        q, k, v = (x[frame : frame + 1] for x in (q_BLC, k_BLC, v_BLC))
        scores = torch.bmm(q, k.transpose(1, 2), out_dtype=torch.float32).mul_(scale)
        torch.bmm(scores.softmax(2).to(v.dtype), v, out=out[frame : frame + 1])
    return out


class FastVaeDecoder:
    """See the module's text. For one size of latents; the first clip captures the graphs, in a second or so."""

    def __init__(
        self, vae: AutoencoderKLWan, latent_height: int, latent_width: int, *, yuv420: bool = False,
        bands: Bands | None = None, told: Told = lambda _latent, _first: nullcontext(),
    ) -> None:
        """With `yuv420` frames are planar [T, H * 3 / 2, W] as `to_yuv420` makes them.

        With `bands` each rank decodes its rows, and all must take the same latent frames: each is `told` before.
        Raises `NotImplementedError` for what `why_not` names.
        """
        if reason := why_not(vae):
            raise NotImplementedError(reason)
        lay_out(vae)
        self._vae, self._yuv420, self._ops = vae, yuv420, BufferOps(bands)
        self._bands, self._told = bands, told
        self._example = torch.zeros(
            1, latent_height, latent_width, vae.config["z_dim"], device=vae.device, dtype=torch.bfloat16)
        self._graphs: tuple[Graphed, Graphed] | None = None
        self._to_host = ToHost()

    def decode(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        """CPU uint8 frames of each latent frame in turn."""
        yield from self._to_host(self.decode_on_device(latents_BCTHW))

    @torch.no_grad()
    def decode_on_device(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        """uint8 frames on the device, each written again by the next."""
        latents = self._vae.post_quant_conv(latents_BCTHW.to(torch.bfloat16))[0].permute(1, 2, 3, 0)
        for index in range(len(latents)):
            yield self.frames(latents[index : index + 1], index == 0)

    @torch.no_grad()
    def frames(self, latent_THWC: torch.Tensor, first: bool) -> torch.Tensor:
        """uint8 frames of one latent frame [1, h, w, z] that passed `post_quant_conv`."""
        with self._told(latent_THWC, first):
            graphs = self._graphs or self._capture()
            return graphs[0 if first else 1](latent_THWC)

    @torch.no_grad()
    def _capture(self) -> tuple[Graphed, Graphed]:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            later = Graphed(lambda latent: self._step(latent, False), (self._example,))
            first = Graphed(lambda latent: self._step(latent, True), (self._example,), pool=later.pool)
        self._graphs = first, later
        return self._graphs

    def _step(self, latent_THWC: torch.Tensor, first: bool) -> torch.Tensor:
        own = latent_THWC if self._bands is None else self._bands.own(latent_THWC)
        levels = to_bytes(decode_frames(self._ops, self._vae, own, first))
        if self._bands is not None:
            levels = self._bands.whole(levels, 1)
        return to_yuv420(levels) if self._yuv420 else levels


def decode_frames(ops: BufferOps, vae: AutoencoderKLWan, latent_THWC: torch.Tensor, first: bool) -> torch.Tensor:
    """Unclamped frames [T, H, W, 3] of one latent frame [1, h, w, z] that passed `post_quant_conv`."""
    ops.first = first
    out = decode_step(ops, vae.decoder, Value(raw=latent_THWC.contiguous()), first)
    frames = (out.raw + out.bias).permute(3, 0, 1, 2)[None]
    return unpatchify(frames, vae.config["patch_size"] or 1)[0].permute(1, 2, 3, 0)


def lay_out(vae: AutoencoderKLWan) -> None:
    """Order the convolutions' weights with channels last, in place: their numbers stay."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
