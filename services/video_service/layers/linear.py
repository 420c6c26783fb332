"""Linear layers over quantised weights.

`Fp8Linear`: float8 weights and activations with one scale a row, the fast form on Hopper and Ada. `Int8Linear`: int8
blocks, as TurboDiffusion's `-quant` files hold them, in half the memory and with the numbers of what they stand for.
`Int8BlockLinear`: the same with activations in int8 too, as theirs computes; the reference of that alone, for it is no
faster than bfloat16 on data-centre cards.

    fast = Fp8Linear.of(linear)                    # nn.Linear -> fp8, on its device
    y = fast(*quantise_rows(x))                    # x [N, K] bfloat16 -> y [N, out] bfloat16
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from video_service.layers.rows import quantise_rows

INT8_BLOCK = 128


class PlainLinear(nn.Module):
    """One or several linear layers side by side over the same input, in the weights' own type."""

    quantises = False

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(weight), None if bias is None else nn.Buffer(bias)

    def forward(self, x_NK: torch.Tensor, scale_N1: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(x_NK, self.weight, self.bias)

    def gelu(self, x_NK: torch.Tensor) -> torch.Tensor:
        """The output's GELU (tanh); on CUDA within the product, which spares a pass over the widest tensor."""
        if x_NK.is_cuda and self.bias is not None and x_NK.dtype == torch.bfloat16:
            return torch.ops.aten._addmm_activation(self.bias, x_NK, self.weight.T, use_gelu=True)
        return F.gelu(self(x_NK), approximate="tanh")


class Int8Linear(PlainLinear):
    """Int8 weights of whole 128x128 blocks, made into numbers for each product: on CUDA 3 bytes a weight are moved."""

    def __init__(
        self, int8_weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
    ) -> None:
        """`dtype`: of what goes in and comes out."""
        nn.Module.__init__(self)
        self.int8_weight, self.scale, self._dtype = nn.Buffer(int8_weight), nn.Buffer(scale), dtype
        self.bias = None if bias is None else nn.Buffer(bias)
        self.out_features, self.in_features = int8_weight.shape

    @property
    def weight(self) -> torch.Tensor:  # pyright: ignore[reportIncompatibleVariableOverride] - made when it is asked for
        """As dequantised once and kept in bfloat16."""
        blocks = self.int8_weight.unflatten(0, (-1, INT8_BLOCK)).unflatten(2, (-1, INT8_BLOCK))
        made = torch.empty(self.int8_weight.shape, dtype=torch.bfloat16, device=self.int8_weight.device)
        # In float32, rounded as it is stored.
        torch.mul(blocks, self.scale[:, None, :, None], out=made.view(blocks.shape))
        return made.to(self._dtype)

    def dense(self) -> nn.Linear:
        """A layer of the library with these weights."""
        with torch.device("meta"):
            layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(self.weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias, requires_grad=False)
        return layer


class Fp8Linear(nn.Module):
    """Float8 weights [out, in] with one float32 scale an output; takes quantised rows, gives bfloat16."""

    quantises = True

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        data, scale = quantise_rows(weight.contiguous())
        self.weight, self.scale = nn.Buffer(data), nn.Buffer(scale.T.contiguous())
        self.bias = None if bias is None else nn.Buffer(bias.to(torch.bfloat16))

    def forward(self, x_NK: torch.Tensor, scale_N1: torch.Tensor | None = None) -> torch.Tensor:
        assert scale_N1 is not None
        if x_NK.is_cuda:
            return torch.ops.aten._scaled_mm(
                x_NK, self.weight.T, scale_a=scale_N1, scale_b=self.scale, bias=self.bias, out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        product = (x_NK.float() @ self.weight.float().T) * scale_N1 * self.scale
        return (product if self.bias is None else product + self.bias.float()).to(torch.bfloat16)


def joined(layers: Sequence[nn.Linear | Int8Linear], *, fp8: bool) -> PlainLinear | Fp8Linear:
    """Linear layers over one input as one product, their outputs side by side.

    Without `fp8` the layers' own weights become views of the joined ones, so that nothing is stored twice.
    """
    if not fp8 and all(isinstance(layer, Int8Linear) for layer in layers):
        return _joined_int8(cast(Sequence[Int8Linear], layers))
    weight = torch.cat([layer.weight.data for layer in layers]) if len(layers) > 1 else layers[0].weight.data
    biases = [layer.bias for layer in layers]
    bias = None if biases[0] is None else torch.cat([cast(torch.Tensor, bias).data for bias in biases])
    if not fp8:
        for layer, own in zip(layers, weight.split([layer.out_features for layer in layers]), strict=True):
            layer.weight.data = own
    return (Fp8Linear if fp8 else PlainLinear)(weight, bias)


def _joined_int8(layers: Sequence[Int8Linear]) -> Int8Linear:
    first = layers[0]
    if len(layers) == 1:
        return first
    levels, scale = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("int8_weight", "scale"))
    bias = None if first.bias is None else torch.cat([cast(torch.Tensor, layer.bias) for layer in layers])
    for layer, own in zip(layers, levels.split([layer.out_features for layer in layers]), strict=True):
        layer.int8_weight = nn.Buffer(own)
    return Int8Linear(levels, scale, bias, first._dtype)


def fits_fp8(layer: nn.Linear | Int8Linear) -> bool:
    """Whether float8 products take its shape (multiples of 16)."""
    return layer.in_features % 16 == 0 and layer.out_features % 16 == 0


def quantise_blocks(x_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [N, K] and float32 scales [ceil(N / 128), K / 128]: amax / 128 of each 128x128 block, at least 1e-8.

    Rounds half to even and saturates at 127, as TurboDiffusion's kernels do. K is a multiple of 128.
    """
    rows, width = x_NK.shape
    if width % INT8_BLOCK:
        raise ValueError(f"{width} columns are not a multiple of {INT8_BLOCK}")
    blocks = F.pad(x_NK.float(), (0, 0, 0, -rows % INT8_BLOCK)).unflatten(0, (-1, INT8_BLOCK))
    blocks = blocks.unflatten(2, (-1, INT8_BLOCK))
    scale = blocks.abs().amax((1, 3)).clamp_min(1e-8) / 128
    levels = (blocks * (1 / scale)[:, None, :, None]).round().clamp(-128, 127).to(torch.int8)
    return levels.flatten(2).flatten(0, 1)[:rows], scale


def dequantise_blocks(levels_NK: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """float32 [N, K] of int8 numbers and their blocks' scales."""
    return levels_NK.float() * _a_number_each(scale, levels_NK.shape)


class Int8BlockLinear(nn.Module):
    """A linear layer of a `-quant` file: int8 weights, activations quantised alike as they come."""

    quantises = False

    def __init__(self, int8_weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.int8_weight, self.scale = nn.Buffer(int8_weight), nn.Buffer(scale)
        self.bias = None if bias is None else nn.Buffer(bias)

    def forward(self, x_NK: torch.Tensor, scale_N1: torch.Tensor | None = None) -> torch.Tensor:
        """bfloat16 [N, out]: integer sums inside 128 columns, float32 across, rounded, and then the bias."""
        levels, scale = quantise_blocks(x_NK)
        total = torch.zeros(len(x_NK), len(self.int8_weight), device=x_NK.device)
        for index, (x, w) in enumerate(zip(levels.split(INT8_BLOCK, 1), self.int8_weight.split(INT8_BLOCK, 1),
                                           strict=True)):
            # Products of int8 summed over 128 columns stay below 2^24, where float32 counts exactly.
            factor = _rows_of(scale[:, index], len(x))[:, None] * _rows_of(self.scale[:, index], len(w))
            # In float64, as the kernels' fused multiply-add rounds once.
            total = torch.addcmul(total.double(), (x.float() @ w.float().T).double(), factor.double()).float()
        out = total.to(torch.bfloat16)
        return out if self.bias is None else out + self.bias.to(out.dtype)


def _rows_of(scale_B: torch.Tensor, rows: int) -> torch.Tensor:
    return scale_B.repeat_interleave(INT8_BLOCK)[:rows]


def _a_number_each(scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    tall = scale.repeat_interleave(INT8_BLOCK, 0)[: shape[0]]
    return tall.repeat_interleave(INT8_BLOCK, 1)[:, : shape[1]]
