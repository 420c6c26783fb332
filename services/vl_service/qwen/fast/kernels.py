"""Triton kernels of one decoding step. A step reads each weight once: what counts is that it does so at full speed.

From Hopper on a kernel begins while the one before it ends (EARLY, NVIDIA's programmatic dependent launch): it reads
the weights that it needs first, and waits for the other before it reads or writes anything else.

Their references are the torch lines beside each call in `network`.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from vl_service.qwen.fast.float8 import Float8

_LATER = {"EARLY": False}
SPLIT = 64  # cached positions that one program attends to


@triton.jit
def _product(
    x, weight, scale, bias, norm, residual, out, outputs, eps, WIDTH: tl.constexpr, TWO: tl.constexpr,
    SCALE: tl.constexpr, NORM: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, EARLY: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = rows < outputs
    own = weight + rows.to(tl.int64)[:, None] * WIDTH
    ups = own + outputs.to(tl.int64) * WIDTH
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    sums2, more, more2 = sums, sums, sums
    squares = tl.zeros((COLUMNS,), tl.float32)
    squares2 = squares
    columns = tl.arange(0, COLUMNS)
    mask = there[:, None] & (columns < WIDTH)[None, :]
    part = tl.load(own + columns[None, :], mask=mask, other=0.0)
    up = part
    if GATED:
        up = tl.load(ups + columns[None, :], mask=mask, other=0.0)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    for start in range(0, WIDTH, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        inside = columns < WIDTH
        value = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
        value2 = value
        if TWO:
            value2 = tl.load(x + WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            factor = tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
            squares += value * value
            value = value * factor
            if TWO:
                squares2 += value2 * value2
                value2 = value2 * factor
        sums += part.to(tl.float32) * value[None, :]
        if TWO:
            sums2 += part.to(tl.float32) * value2[None, :]
        if GATED:
            more += up.to(tl.float32) * value[None, :]
            if TWO:
                more2 += up.to(tl.float32) * value2[None, :]
        if WIDTH > COLUMNS:  # the next
            columns += COLUMNS
            mask = there[:, None] & (columns < WIDTH)[None, :]
            part = tl.load(own + columns[None, :], mask=mask, other=0.0)
            if GATED:
                up = tl.load(ups + columns[None, :], mask=mask, other=0.0)
    factor, factor_up = 1.0, 1.0
    if SCALE:
        factor = tl.load(scale + rows, mask=there, other=0.0)
        if GATED:
            factor_up = tl.load(scale + outputs + rows, mask=there, other=0.0)
    _finish(tl.sum(sums, axis=1) * factor, tl.sum(more, axis=1) * factor_up, tl.sum(squares, axis=0), bias, residual,
            out, rows, there, eps, WIDTH, NORM, BIAS, RESIDUAL, GATED)
    if TWO:
        _finish(tl.sum(sums2, axis=1) * factor, tl.sum(more2, axis=1) * factor_up, tl.sum(squares2, axis=0), bias,
                residual + outputs, out + outputs, rows, there, eps, WIDTH, NORM, BIAS, RESIDUAL, GATED)


@triton.jit
def _finish(
    total, up, squares, bias, residual, out, rows, there, eps, WIDTH: tl.constexpr, NORM: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, GATED: tl.constexpr,
):
    if NORM:
        inverse = 1.0 / tl.sqrt(squares / WIDTH + eps)
        total *= inverse
        up *= inverse
    if GATED:
        total = total / (1.0 + tl.exp(-total)) * up
    if BIAS:
        total += tl.load(bias + rows, mask=there, other=0.0).to(tl.float32)
    if RESIDUAL:
        total += tl.load(residual + rows, mask=there, other=0.0).to(tl.float32)
    tl.store(out + rows, total.to(out.dtype.element_ty), mask=there)


def product(x, weight, *, bias=None, norm=None, eps=0.0, residual=None, gated=False, dtype=None):
    """x [1 or 2, in] times `weight` [out, in], which may be a `Float8`.

    With `norm` it is the RMS norm of x; where `gated`, silu(first half of the outputs) * second half. From three rows
    on the libraries' products are faster, and so were these for the matrix units, of two rows and of 16.
    """
    numbers, scale = (weight.numbers, weight.scale) if isinstance(weight, Float8) else (weight, None)
    outputs, width = numbers.shape
    outputs = outputs // 2 if gated else outputs
    out = torch.empty(len(x), outputs, dtype=dtype or x.dtype, device=x.device)
    given = [x if part is None else part for part in (scale, bias, norm, residual)]
    two = len(x) == 2
    rows, columns, warps, late = _shape(outputs, width, gated, two, eight_bits=scale is not None)
    _product[(triton.cdiv(outputs, rows),)](
        x, numbers, *given, out, outputs, eps, WIDTH=width, TWO=two, SCALE=scale is not None, NORM=norm is not None,
        BIAS=bias is not None, RESIDUAL=residual is not None, GATED=gated, ROWS=rows, COLUMNS=columns,
        num_warps=warps, **(_LATER if late else _early(x.device)))
    return out


@cache
def _early(device):
    """How a kernel of these is started there."""
    early = torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)
    return {"EARLY": True, "launch_pdl": True} if early else _LATER


def _shape(outputs: int, width: int, gated: bool, two: bool, *, eight_bits: bool) -> tuple[int, int, int, bool]:
    """Rows and columns of a tile, warps, and whether it is not begun early: the fastest of 15 to 60 for each of
    Qwen2.5-VL-3B's products on an H200.
    """
    if not two:
        if outputs > 50_000:
            return 8, 2048, 8, False
        if gated:
            return 4, 2048, 4, False
        return (1, 1024, 4, False) if width > 4096 or outputs <= width else (2, 2048, 4, False)
    if outputs > 50_000:
        return 8, 256, 1, True
    if gated:
        return (4, 2048, 8, True) if eight_bits else (4, 256, 1, True)
    if width > 4096:
        return (2, 1024, 1, False) if eight_bits else (2, 1024, 4, True)
    if outputs <= width:
        return (4, 2048, 4, False) if eight_bits else (2, 1024, 1, True)
    return 4, 2048, 4, True


@triton.jit
def _attend_part(
    qkv, cos, sin, position, turn, q_norm, k_norm, keys, values, tops, weights, totals, length, scale, eps,
    HEADS: tl.constexpr, KV: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, HALF: tl.constexpr,
    SPAN: tl.constexpr, NORMED: tl.constexpr, EARLY: tl.constexpr,
):
    """One group of query heads over SPAN cached positions; the new key and value join the cache on the way."""
    DIM: tl.constexpr = 2 * HALF
    pair, part = tl.program_id(0), tl.program_id(1)
    batch, group = pair // KV, pair % KV
    at = tl.load(position + batch)
    heads = tl.arange(0, PADDED)
    place = (pair * tl.num_programs(1) + part) * PADDED + heads
    channels = tl.arange(0, DIM)
    if EARLY:
        gdc_launch_dependents()
    if part * SPAN > at:
        if EARLY:
            gdc_wait()
        tl.store(tops + place, tl.full((PADDED,), -1e30, tl.float32))
        tl.store(weights + place, tl.zeros((PADDED,), tl.float32))
        tl.store(totals + place[:, None] * DIM + channels[None, :], tl.zeros((PADDED, DIM), tl.float32))
    else:
        half = tl.arange(0, HALF)
        rows = part * SPAN + tl.arange(0, SPAN)
        cached = (pair * length + rows) * DIM
        older = (rows < at)[:, None]
        now = (rows == at)[:, None]
        past1 = tl.load(keys + cached[:, None] + half[None, :], mask=older, other=0.0)
        past2 = tl.load(keys + cached[:, None] + HALF + half[None, :], mask=older, other=0.0)
        past = tl.load(values + cached[:, None] + channels[None, :], mask=older, other=0.0)
        if EARLY:
            gdc_wait()
        base = qkv + batch * (HEADS + 2 * KV) * DIM
        there = (heads < GROUP)[:, None]
        from_q = base + (group * GROUP + heads)[:, None] * DIM + half[None, :]
        q1 = tl.load(from_q, mask=there, other=0.0).to(tl.float32)
        q2 = tl.load(from_q + HALF, mask=there, other=0.0).to(tl.float32)
        from_k = base + (HEADS + group) * DIM + half
        k1 = tl.load(from_k).to(tl.float32)
        k2 = tl.load(from_k + HALF).to(tl.float32)
        if NORMED:
            inverse = 1.0 / tl.sqrt((tl.sum(q1 * q1, axis=1) + tl.sum(q2 * q2, axis=1)) / DIM + eps)
            q1 = q1 * inverse[:, None] * tl.load(q_norm + half).to(tl.float32)[None, :]
            q2 = q2 * inverse[:, None] * tl.load(q_norm + HALF + half).to(tl.float32)[None, :]
            inverse_k = 1.0 / tl.sqrt((tl.sum(k1 * k1, axis=0) + tl.sum(k2 * k2, axis=0)) / DIM + eps)
            k1 = k1 * inverse_k * tl.load(k_norm + half).to(tl.float32)
            k2 = k2 * inverse_k * tl.load(k_norm + HALF + half).to(tl.float32)
        angle = tl.load(turn + batch) * HALF + half
        c = tl.load(cos + angle)
        s = tl.load(sin + angle)
        kind = keys.dtype.element_ty
        query1 = (q1 * c[None, :] - q2 * s[None, :]).to(kind)
        query2 = (q2 * c[None, :] + q1 * s[None, :]).to(kind)
        key1 = (k1 * c - k2 * s).to(kind)
        key2 = (k2 * c + k1 * s).to(kind)
        value = tl.load(base + (HEADS + KV + group) * DIM + channels)
        past1 = tl.where(now, key1[None, :], past1)
        past2 = tl.where(now, key2[None, :], past2)
        past = tl.where(now, value[None, :], past)
        scores = (tl.dot(query1, tl.trans(past1)) + tl.dot(query2, tl.trans(past2))) * scale
        scores = tl.where((rows <= at)[None, :], scores, -1e30)
        top = tl.max(scores, axis=1)
        p = tl.exp2(scores - top[:, None])
        tl.store(tops + place, top)
        tl.store(weights + place, tl.sum(p, axis=1))
        tl.store(totals + place[:, None] * DIM + channels[None, :], tl.dot(p.to(kind), past))
        if at < (part + 1) * SPAN:
            new = (pair * length + at) * DIM
            tl.store(keys + new + half, key1)
            tl.store(keys + new + HALF + half, key2)
            tl.store(values + new + channels, value)


@triton.jit
def _combine(
    tops, weights, totals, out, parts, GROUP: tl.constexpr, PADDED: tl.constexpr, DIM: tl.constexpr,
    PARTS: tl.constexpr, EARLY: tl.constexpr,
):
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0)
    pair, within = head // GROUP, head % GROUP
    part = tl.arange(0, PARTS)
    there = part < parts
    place = (pair * parts + part) * PADDED + within
    top = tl.load(tops + place, mask=there, other=-1e30)
    fade = tl.exp2(top - tl.max(top, axis=0))
    weight = tl.sum(fade * tl.load(weights + place, mask=there, other=0.0), axis=0)
    channels = tl.arange(0, DIM)
    total = tl.load(totals + place[:, None] * DIM + channels[None, :], mask=there[:, None], other=0.0)
    result = tl.sum(total * fade[:, None], axis=0) / weight
    tl.store(out + head * DIM + channels, result.to(out.dtype.element_ty))


def attend(qkv, cos, sin, position, turn, norms, eps, keys, values):
    """One new token a row over its cache [B, KV, length, D], which takes the new key and value. -> [B, heads * D]."""
    batch, kv, length, dim = keys.shape
    heads = qkv.shape[1] // dim - 2 * kv
    group = heads // kv
    padded = max(16, triton.next_power_of_2(group))
    parts = triton.cdiv(length, SPLIT)
    tops, weights = torch.empty(2, batch * kv * parts * padded, dtype=torch.float32, device=qkv.device)
    totals = torch.empty(batch * kv * parts * padded, dim, dtype=torch.float32, device=qkv.device)
    out = torch.empty(batch, heads * dim, dtype=qkv.dtype, device=qkv.device)
    q_norm, k_norm = (qkv, qkv) if norms is None else norms
    _attend_part[(batch * kv, parts)](
        qkv, cos, sin, position, turn, q_norm, k_norm, keys, values, tops, weights, totals, length,
        dim**-0.5 * 1.4426950408889634, eps, HEADS=heads, KV=kv, GROUP=group, PADDED=padded, HALF=dim // 2, SPAN=SPLIT,
        NORMED=norms is not None, num_warps=4, **_early(qkv.device),
    )
    _combine[(batch * heads,)](
        tops, weights, totals, out, parts, GROUP=group, PADDED=padded, DIM=dim, PARTS=triton.next_power_of_2(parts),
        num_warps=4, **_early(qkv.device),
    )
    return out
