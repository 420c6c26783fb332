"""Triton kernels over the rows (tokens) of a transformer: one read and one write of memory for each.

Their references are the functions of the same name in `rows`.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl

FP8_MAX = 448.0


@triton.jit
def _store_row(out, scales, row, columns, mask, value, width, QUANTISE: tl.constexpr):
    """A row in bfloat16, or in float8 with the scale that brings its largest number to float8's largest."""
    if QUANTISE:
        scale = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12) / 448.0
        tl.store(scales + row, scale)
        value = value * (1.0 / scale)  # the conversion saturates
    tl.store(out + row * width + columns, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _residual_norm(
    x, y, gate, factor, shift, kept, out, scales, width, eps,
    RESIDUAL: tl.constexpr, GATED: tl.constexpr, QUANTISE: tl.constexpr, BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    value = tl.load(x + row * width + columns, mask=mask, other=0.0).to(tl.float32)
    if RESIDUAL:
        update = tl.load(y + row * width + columns, mask=mask, other=0.0).to(tl.float32)
        if GATED:
            update = update * tl.load(gate + columns, mask=mask, other=0.0)
        rounded = (value + update).to(tl.bfloat16)
        tl.store(kept + row * width + columns, rounded, mask=mask)
        value = rounded.to(tl.float32)
    mean = tl.sum(value, axis=0) / width
    centred = tl.where(mask, value - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + eps)
    normed = centred * inverse * tl.load(factor + columns, mask=mask, other=0.0)
    normed += tl.load(shift + columns, mask=mask, other=0.0)
    if QUANTISE:
        normed = normed.to(tl.bfloat16).to(tl.float32)
    _store_row(out, scales, row, columns, mask, normed, width, QUANTISE)


def residual_norm(x_NC, update_NC, gate_C, factor_C, shift_C, eps, quantise):
    """See `rows.residual_norm`."""
    rows, width = x_NC.shape
    kept = torch.empty_like(x_NC) if update_NC is not None else x_NC
    out, scales = _outputs(x_NC, quantise)
    block = triton.next_power_of_2(width)
    _residual_norm[(rows,)](
        x_NC, x_NC if update_NC is None else update_NC, factor_C if gate_C is None else gate_C, factor_C, shift_C,
        kept, out, scales, width, eps, RESIDUAL=update_NC is not None, GATED=gate_C is not None, QUANTISE=quantise,
        BLOCK=block, num_warps=_norm_warps(block, quantise),
    )
    return kept, out, scales if quantise else None


@triton.jit
def _rms_rotate(
    x, weight, cos, sin, row_stride, width, length, eps, HALF: tl.constexpr, ROTATE: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    base = x + row * row_stride + part * width
    pairs = tl.arange(0, BLOCK // 2)
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    value = tl.load(base + columns, mask=mask, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / width + eps)
    scaled = value * inverse * tl.load(weight + part * width + columns, mask=mask, other=0.0).to(tl.float32)
    scaled = scaled.to(tl.bfloat16).to(tl.float32)
    if ROTATE:
        even, odd = tl.split(tl.reshape(scaled, (BLOCK // 2, 2)))
        at = (row % length) * HALF + pairs % HALF
        c = tl.load(cos + at)
        s = tl.load(sin + at)
        scaled = tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (BLOCK,))
    tl.store(base + columns, scaled.to(tl.bfloat16), mask=mask)


def rms_rotate_(x_NC, weight_PC, rotary, eps):
    """See `rows.rms_rotate_`."""
    parts, width = weight_PC.shape
    block = triton.next_power_of_2(width)
    cos, sin = (weight_PC, weight_PC) if rotary is None else rotary
    _rms_rotate[(x_NC.shape[0], parts)](
        x_NC, weight_PC, cos, sin, x_NC.stride(0), width, cos.shape[0], eps, HALF=cos.shape[1],
        ROTATE=rotary is not None, BLOCK=block, num_warps=_warps(block),
    )
    return x_NC


@triton.jit
def _gelu(x):
    # The device's own tanh: off by 5e-4 at most, a hundredth of what float8 rounds away.
    inner = x * (0.7978845608028654 + 0.035677408136300125 * x * x)
    tanh = tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [inner], dtype=tl.float32, is_pure=True, pack=1)
    half = 0.5 * x
    return half * tanh + half


@triton.jit
def _gelu_quantise(
    x, out, scales, width, GELU: tl.constexpr, TWO: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    # Two parts, since one block of a power of two would be near half empty for 8,960 columns.
    first = tl.arange(0, MAIN)
    a = tl.load(x + row * width + first).to(tl.float32)
    b = tl.zeros((REST,), tl.float32)
    if GELU:
        a = _gelu(a)
    largest = tl.max(tl.abs(a), axis=0)
    second = MAIN + tl.arange(0, REST)
    mask = second < width
    if TWO:
        b = tl.load(x + row * width + second, mask=mask, other=0.0).to(tl.float32)
        if GELU:
            b = _gelu(b)
        largest = tl.maximum(largest, tl.max(tl.abs(b), axis=0))
    scale = tl.maximum(largest, 1e-12) / 448.0
    inverse = 1.0 / scale
    tl.store(scales + row, scale)
    # The conversion saturates.
    a = a * inverse
    tl.store(out + row * width + first, a.to(out.dtype.element_ty))
    if TWO:
        b = b * inverse
        tl.store(out + row * width + second, b.to(out.dtype.element_ty), mask=mask)


def quantise_rows(x_NC, gelu):
    """See `rows.quantise_rows`."""
    rows, width = x_NC.shape
    main = 1 << (width.bit_length() - 1)
    rest = triton.next_power_of_2(width - main) if width > main else 1
    out, scales = _outputs(x_NC, True)
    _gelu_quantise[(rows,)](
        x_NC, out, scales, width, GELU=gelu, TWO=width > main, MAIN=main, REST=rest,
        num_warps=2 if main <= 1024 else 4,
    )
    return out, scales


def _outputs(x_NC, quantise):
    out = torch.empty_like(x_NC, dtype=torch.float8_e4m3fn if quantise else torch.bfloat16)
    scales = torch.empty(x_NC.shape[0], 1, dtype=torch.float32, device=x_NC.device) if quantise else out
    return out, scales


def _warps(block: int) -> int:
    return 4 if block <= 2048 else 8


def _norm_warps(block: int, quantise: bool) -> int:
    """Of 1 to 32, measured at 1,536 and 5,120 columns on an H200."""
    if quantise:
        return 8 if block <= 4096 else 4
    return _warps(block)
