"""Triton kernels of the Wan VAE, over frames [T, H, W, C] in bfloat16. Their reference is `wan_vae.TorchOps`.

A causal convolution reads a buffer [T + 2, H + 2, W + 2, C]: two frames of history, and a border of zeros that nothing
writes to. Whatever feeds it (sum, norm, SiLU) writes there at once, and moves the history on in the same pass.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

import triton
import triton.language as tl

HISTORY = 2


@triton.jit
def _rounded(x):
    return x.to(tl.bfloat16).to(tl.float32)


@triton.jit
def _sum(
    a, a_bias, b, b_bias, at, channels, mask, inside,
    A_BIAS: tl.constexpr, B: tl.constexpr, B_BIAS: tl.constexpr,
):
    """What a and b with their biases come to, rounded where torch would."""
    value = tl.load(a + at, mask=mask, other=0.0).to(tl.float32)
    if A_BIAS:
        value = _rounded(value + tl.load(a_bias + channels, mask=inside, other=0.0).to(tl.float32)[None, :])
    if B:
        other = tl.load(b + at, mask=mask, other=0.0).to(tl.float32)
        if B_BIAS:
            other = _rounded(other + tl.load(b_bias + channels, mask=inside, other=0.0).to(tl.float32)[None, :])
        value = _rounded(value + other)
    return value


@triton.jit
def _feed(
    a, a_bias, b, b_bias, kept, gamma, buffer, height, width, span, scale,
    FRAMES: tl.constexpr, LAST: tl.constexpr, CHANNELS: tl.constexpr,
    A_BIAS: tl.constexpr, B: tl.constexpr, B_BIAS: tl.constexpr, KEEP: tl.constexpr, NORM: tl.constexpr,
    SILU: tl.constexpr, STATE: tl.constexpr, BORDER: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):
    """STATE 0: no history; 1: two frames move to the front; 2: the last frame is the first of a clip."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.arange(0, BLOCK)
    inside = channels < CHANNELS
    mask = (pixel < height * width)[:, None] & inside[None, :]
    from_pixel = pixel[:, None] * CHANNELS + channels[None, :]
    wide = width + 2 * BORDER
    to_pixel = (pixel // width + BORDER) * wide + pixel % width + BORDER
    to_pixel = to_pixel[:, None] * CHANNELS + channels[None, :]
    frame_in = (height * width).to(tl.int64) * CHANNELS
    frame_out = ((height + 2 * BORDER) * wide).to(tl.int64) * CHANNELS
    start = 0
    if STATE == 1:
        start = 2
        # Each program moves its own pixels, before it writes over them.
        older = tl.load(buffer + span * frame_out + to_pixel, mask=mask)
        newer = tl.load(buffer + (span + 1) * frame_out + to_pixel, mask=mask)
        tl.store(buffer + to_pixel, older, mask=mask)
        tl.store(buffer + frame_out + to_pixel, newer, mask=mask)
    if STATE == 2:
        start = span + 1
        nothing = tl.zeros((PIXELS, BLOCK), tl.bfloat16)
        tl.store(buffer + (span - 1) * frame_out + to_pixel, nothing, mask=mask)
        tl.store(buffer + span * frame_out + to_pixel, nothing, mask=mask)
    factor = tl.load(gamma + channels, mask=inside, other=0.0).to(tl.float32) * scale
    for frame in range(0, FRAMES):
        at = min(frame, LAST) * frame_in + from_pixel
        value = _sum(a, a_bias, b, b_bias, at, channels, mask, inside, A_BIAS, B, B_BIAS)
        if KEEP:
            tl.store(kept + frame * frame_in + from_pixel, value.to(tl.bfloat16), mask=mask)
        if NORM:
            length = tl.maximum(tl.sqrt(tl.sum(value * value, axis=1)), 1e-12)
            value = value * (1.0 / length)[:, None] * factor[None, :]
        if SILU:
            value = value / (1.0 + tl.exp(-value))
        tl.store(buffer + (start + frame) * frame_out + to_pixel, value.to(tl.bfloat16), mask=mask)


def feed(a, a_bias, b, b_bias, gamma, buffer, *, keep, silu, state, border, span, frames=None):
    """Sum, norm by `gamma` (or not), SiLU (or not), into `buffer`; the sum itself where `keep`, else None.

    Past its end, up to `frames`, the last frame repeats.
    """
    given, height, width, channels = a.shape
    frames = frames or given
    kept = a.new_empty(frames, height, width, channels) if keep else None
    block = triton.next_power_of_2(channels)
    pixels = max(1, 2048 // block)
    _feed[(triton.cdiv(height * width, pixels),)](
        a, *(a if x is None else x for x in (a_bias, b, b_bias, kept, gamma)), buffer, height, width, span,
        channels**0.5, FRAMES=frames, LAST=given - 1, CHANNELS=channels, A_BIAS=a_bias is not None, B=b is not None,
        B_BIAS=b_bias is not None, KEEP=keep, NORM=gamma is not None, SILU=silu, STATE=state, BORDER=border,
        PIXELS=pixels, BLOCK=block, num_warps=4,
    )
    return kept


@triton.jit
def _enlarge(
    a, a_bias, b, b_bias, out, height, width, CHANNELS: tl.constexpr, TIMES: tl.constexpr,
    A_BIAS: tl.constexpr, B: tl.constexpr, B_BIAS: tl.constexpr, PIXELS: tl.constexpr, BLOCK: tl.constexpr,
):
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    frame, part = tl.program_id(1) // TIMES, tl.program_id(1) % TIMES
    channels = tl.arange(0, BLOCK)
    inside = channels < CHANNELS
    mask = (pixel < height * width)[:, None] & inside[None, :]
    shift = part * CHANNELS
    at = (frame * (height * width) + pixel)[:, None] * (CHANNELS * TIMES) + shift + channels[None, :]
    value = _sum(a, a_bias + shift, b, b_bias, at, channels, mask, inside, A_BIAS, B, B_BIAS).to(tl.bfloat16)
    row, column = pixel // width, pixel % width
    first = (tl.program_id(1).to(tl.int64) * (2 * height) + 2 * row) * (2 * width) + 2 * column
    to = first[:, None] * CHANNELS + channels[None, :]
    tl.store(out + to, value, mask=mask)
    tl.store(out + to + CHANNELS, value, mask=mask)
    tl.store(out + to + 2 * width * CHANNELS, value, mask=mask)
    tl.store(out + to + 2 * width * CHANNELS + CHANNELS, value, mask=mask)


def enlarge(a, a_bias, b, b_bias, times):
    """Each pixel as 2x2; with `times` 2 the channels' halves become two frames. [T, H, W, C] -> [T', 2H, 2W, C']."""
    frames, height, width, channels = a.shape
    channels //= times
    out = a.new_empty(frames * times, 2 * height, 2 * width, channels)
    block = triton.next_power_of_2(channels)
    pixels = max(1, 2048 // block)
    _enlarge[(triton.cdiv(height * width, pixels), frames * times)](
        a, *(a if x is None else x for x in (a_bias, b, b_bias)), out, height, width, CHANNELS=channels, TIMES=times,
        A_BIAS=a_bias is not None, B=b is not None, B_BIAS=b_bias is not None, PIXELS=pixels, BLOCK=block, num_warps=4,
    )
    return out
