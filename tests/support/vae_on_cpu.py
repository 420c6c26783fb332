"""The CUDA decoder of the Wan VAE on a CPU, with torch in the place of its kernels and without graphs: for its order of
operations, and for what ranks exchange in it. Imported before `vae_cuda` in each process.
"""

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

_KERNELS = "video_service.layers.kernels.vae"


def feed(
    a: Any, a_bias: Any, b: Any, b_bias: Any, gamma: Any, buffer: Any, *, keep: bool, silu: bool, state: int,
    border: int, span: int, frames: int | None = None,
) -> Any:
    """See the kernel of this name."""
    value = _sum(a, a_bias, b, b_bias)
    inside = buffer[:, border : buffer.shape[1] - border, border : buffer.shape[2] - border] if border else buffer
    start = {0: 0, 1: 2, 2: span + 1}[state]
    if state == 1:
        inside[:2] = inside[span : span + 2].clone()
    if state == 2:
        inside[span - 1 : span + 1] = 0
    x = value.float()
    if gamma is not None:
        x = F.normalize(x, dim=-1) * gamma.flatten().float() * x.shape[-1] ** 0.5
    inside[start : start + len(x)] = (F.silu(x) if silu else x).to(buffer.dtype)
    return value if keep else None


def enlarge(a: Any, a_bias: Any, b: Any, b_bias: Any, times: int) -> Any:
    """See the kernel of this name."""
    value = _sum(a, a_bias, b, b_bias).unflatten(-1, (times, -1)).movedim(3, 1).flatten(0, 1)
    return value.repeat_interleave(2, 1).repeat_interleave(2, 2)


def _sum(a: Any, a_bias: Any, b: Any, b_bias: Any) -> Any:
    value = a if a_bias is None else a + a_bias
    if b is not None:
        value = value + (b if b_bias is None else b + b_bias)
    return value


class Called:
    """In the place of a graph: it runs once as a capture does, and then each time."""

    pool = None

    def __init__(self, function: Callable[..., Any], arguments: Sequence[torch.Tensor], pool: Any = None) -> None:
        self._function = function
        function(*arguments)

    def __call__(self, *arguments: torch.Tensor) -> Any:
        return self._function(*arguments)


def cpu_decoder(vae: Any, height: int, width: int, **more: Any) -> Any:
    """A `FastVaeDecoder`, of which `decode_on_device` works."""
    kernels = types.ModuleType(_KERNELS)
    vars(kernels).update(feed=feed, enlarge=enlarge)
    sys.modules[_KERNELS] = kernels
    from video_service.layers.wan import vae_cuda

    for name, value in {"why_not": lambda vae: None, "Graphed": Called, "ToHost": lambda: None}.items():
        setattr(vae_cuda, name, value)
    return vae_cuda.FastVaeDecoder(vae, height, width, **more)


class Owner:
    """Of what a group was given, in the place of a codec."""

    def let_go(self) -> None:
        """There are no graphs."""


class CpuDecoders:
    """What a peer makes."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._made: Any = None

    def __call__(self, size: tuple[int, int], latent_THWC: torch.Tensor, first: bool) -> None:
        from video_service.layers.wan.bands import Bands

        self._made = self._made or cpu_decoder(self._vae, *size, bands=Bands())
        self._made.frames(latent_THWC, first)
