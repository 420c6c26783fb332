"""Triton kernels of many tokens at once, where prompts are read and pictures are seen: what stands between products.

Their references are the torch lines beside each call in `network` and `tower`.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

import triton
import triton.language as tl


@triton.jit
def _rotate_halves(x, cos, sin, row_stride, HEADS: tl.constexpr, HALF: tl.constexpr, H: tl.constexpr, D: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    heads, half = tl.arange(0, H), tl.arange(0, D)
    inside = half < HALF
    mask = (heads < HEADS)[:, None] & inside[None, :]
    at = x + row * row_stride + heads[:, None] * (2 * HALF) + half[None, :]
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + HALF, mask=mask, other=0.0).to(tl.float32)
    c = tl.load(cos + row * HALF + half, mask=inside, other=0.0)[None, :]
    s = tl.load(sin + row * HALF + half, mask=inside, other=0.0)[None, :]
    tl.store(at, (first * c - second * s).to(x.dtype.element_ty), mask=mask)
    tl.store(at + HALF, (second * c + first * s).to(x.dtype.element_ty), mask=mask)


def rotate_halves_(x_LC, cos_LD, sin_LD, heads):
    """Rotate the first `heads` heads of each row, in place: channel i with channel i + D / 2."""
    half = cos_LD.shape[1]
    _rotate_halves[(len(x_LC),)](
        x_LC, cos_LD, sin_LD, x_LC.stride(0), HEADS=heads, HALF=half, H=triton.next_power_of_2(heads),
        D=triton.next_power_of_2(half), num_warps=4,
    )
    return x_LC


@triton.jit
def _gated(x, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < width
    gate = tl.load(x + row * 2 * width + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + columns, mask=mask, other=0.0).to(tl.float32)
    gate = (gate / (1.0 + tl.exp(-gate))).to(tl.bfloat16).to(tl.float32)
    tl.store(out + row * width + columns, (gate * up).to(out.dtype.element_ty), mask=mask)


def gated(x_LC):
    """silu(first half) * second half of each row."""
    rows, width = len(x_LC), x_LC.shape[1] // 2
    out = x_LC.new_empty(rows, width)
    _gated[(rows, triton.cdiv(width, 2048))](x_LC, out, width, BLOCK=2048, num_warps=4)
    return out
