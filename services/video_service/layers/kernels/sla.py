"""SLA in Triton: four kernels. Their reference is `attention.SparseLinearAttention` in torch.

One pass over the keys and values gives each key block's mean and the linear branch's keysᵀ·values. `proj_l` is linear
and the linear branch divides whole rows, so it is folded into that D x D product. One pass over the queries gives their
blocks' means and the linear branch; then the best key blocks are chosen, and attended to.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from video_service.layers.attention import flash
from video_service.layers.attention.sla import KEY_BLOCK, QUERY_BLOCK, kept_blocks

CHUNK_BLOCKS = 8  # key blocks that one program sums up
KEY_STAGES, KEY_WARPS = 3, 4


@triton.jit
def _query_pass(
    q, means, products, sums, bias, out, row_stride, length, heads, blocks,
    LINEAR: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
):
    """A query block's mean, and its linear branch into `out`, to which the attention adds."""
    # Heads first: programs at work together then read whole rows of memory.
    pair, block = tl.program_id(0), tl.program_id(1)
    batch, head = pair // heads, pair % heads
    rows = block * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, DIM)
    there = (rows < length)[:, None]
    row = (batch * length + rows).to(tl.int64)[:, None]
    value = tl.load(q + row * row_stride + head * DIM + channels[None, :], mask=there, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / tl.minimum(length - block * BLOCK, BLOCK)
    tl.store(means + (pair * blocks + block) * DIM + channels, mean)
    if LINEAR:
        feature = tl.exp(value - tl.max(value, axis=1)[:, None])
        feature = feature / tl.sum(feature, axis=1)[:, None]
        below = tl.sum(feature * tl.load(sums + pair * DIM + channels)[None, :], axis=1) + 1e-5
        square = channels[:, None] * DIM + channels[None, :]
        product = tl.load(products + pair * DIM * DIM + square)
        linear = tl.dot(feature.to(product.dtype), product) / below[:, None] + tl.load(bias + channels)[None, :]
        at = out + row * (heads * DIM) + head * DIM + channels[None, :]
        tl.store(at, linear.to(out.dtype.element_ty), mask=there)


@triton.jit
def _key_pass(
    k, v, means, products, sums, row_stride, length, heads, blocks, chunks,
    LINEAR: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr, STAGES: tl.constexpr,
):
    pair, chunk = tl.program_id(0), tl.program_id(1)
    batch, head = pair // heads, pair % heads
    channels = tl.arange(0, DIM)
    product = tl.zeros((DIM, DIM), tl.float32)
    total = tl.zeros((DIM,), tl.float32)
    for step in tl.range(0, CHUNK, num_stages=STAGES):
        block = chunk * CHUNK + step
        rows = block * BLOCK + tl.arange(0, BLOCK)
        mask = (rows < length)[:, None]
        at = (batch * length + rows).to(tl.int64)[:, None] * row_stride + head * DIM + channels[None, :]
        key = tl.load(k + at, mask=mask, other=0.0).to(tl.float32)
        mean = tl.sum(key, axis=0) / tl.minimum(length - block * BLOCK, BLOCK)
        tl.store(means + (pair * blocks + block) * DIM + channels, mean, mask=block < blocks)
        if LINEAR:
            feature = tl.exp(key - tl.max(key, axis=1)[:, None])
            feature = tl.where(mask, feature / tl.sum(feature, axis=1)[:, None], 0.0)
            total += tl.sum(feature, axis=0)
            value = tl.load(v + at, mask=mask, other=0.0)
            product = tl.dot(tl.trans(feature.to(value.dtype)), value, product)
    if LINEAR:
        place = pair * chunks + chunk
        tl.store(sums + place * DIM + channels, total)
        square = channels[:, None] * DIM + channels[None, :]
        tl.store(products + place.to(tl.int64) * DIM * DIM + square, product)


@triton.jit
def _select(scores, chosen, blocks, KEEP: tl.constexpr, BLOCK: tl.constexpr):
    """The KEEP best of a row, in order of place; among equals the first. One bit of the least kept score a round."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    there = place < blocks
    bits = tl.load(scores + row * blocks + place, mask=there, other=0.0).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    ordered = tl.where(there, ordered, -(1 << 40))
    least = tl.full((), -(1 << 31), tl.int64)
    for power in tl.static_range(31, -1, -1):
        candidate = least + (1 << power)
        least = tl.where(tl.sum((ordered >= candidate).to(tl.int32), axis=0) >= KEEP, candidate, least)
    above = ordered > least
    equal = (ordered == least).to(tl.int32)
    wanted = KEEP - tl.sum(above.to(tl.int32), axis=0)
    kept = above | ((equal == 1) & (tl.cumsum(equal, axis=0) <= wanted))
    tl.store(chosen + row * KEEP + tl.cumsum(kept.to(tl.int32), axis=0) - 1, place.to(tl.int32), mask=kept)


@triton.jit
def _attend(
    q, k, v, chosen, starts, out, length, heads, blocks, scale,
    KEPT: tl.constexpr, ADDED: tl.constexpr, TILED: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    DIM: tl.constexpr, STAGES: tl.constexpr,
):
    """Blocks lie at equal distances, or, TILED, from one of `starts` to the next, at most as many rows."""
    block = tl.program_id(0)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first, column = batch * length, head * DIM
    channels = tl.arange(0, DIM)
    begin, end = block * QUERIES, length
    if TILED:
        begin, end = tl.load(starts + block), tl.load(starts + block + 1)
    rows = begin + tl.arange(0, QUERIES)
    at = out + (first + rows).to(tl.int64)[:, None] * (heads * DIM) + column + channels[None, :]
    there = (rows < end)[:, None]
    query = q.load([first + begin, column])
    listed = chosen + (tl.program_id(1) * blocks + block) * KEPT
    within = tl.arange(0, KEYS)
    largest = tl.full((QUERIES,), -1e30, tl.float32)
    weight = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, DIM), tl.float32)
    for index in tl.range(0, KEPT, num_stages=STAGES):
        place = tl.load(listed + index)
        start, last = place * KEYS, length
        if TILED:
            start, last = tl.load(starts + place), tl.load(starts + place + 1)
        scores = tl.dot(query, k.load([first + start, column]).T)
        scores = tl.where((start + within < last)[None, :], scores, -1e30)
        top = tl.maximum(largest, tl.max(scores, axis=1) * scale)
        p = tl.exp2(scores * scale - top[:, None])
        fade = tl.exp2(largest - top)
        weight = weight * fade + tl.sum(p, axis=1)
        total = tl.dot(p.to(query.dtype), v.load([first + start, column]), total * fade[:, None])
        largest = top
    total = total / weight[:, None]
    if ADDED:
        total += tl.load(at, mask=there, other=0.0).to(tl.float32)
    tl.store(at, total.to(out.dtype.element_ty), mask=there)


def sparse_linear_attention(
    q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, topk: float,
    proj_weight: torch.Tensor | None, proj_bias: torch.Tensor | None,
) -> torch.Tensor:
    """[B, L, H, D] bfloat16, D 64 or 128; heads lie side by side in memory, rows at an equal distance."""
    q, k, v = (by_rows(x) for x in (q_BLHD, k_BLHD, v_BLHD))
    batch, length, heads, dim = q.shape
    if k.stride(1) != v.stride(1):  # one pass reads both
        k, v = k.contiguous(), v.contiguous()
    query_blocks = -(-length // QUERY_BLOCK)
    linear = proj_weight is not None
    query_means = q.new_empty(batch * heads, query_blocks, dim, dtype=torch.float32)
    out = torch.empty(batch, length, heads, dim, dtype=q.dtype, device=q.device)
    key_means, products, sums = _over_keys(k, v, linear)
    if proj_weight is not None:
        products = products @ proj_weight.T
    _query_pass[(batch * heads, query_blocks)](
        q, query_means, products.to(q.dtype), sums, sums if proj_bias is None else proj_bias, out, q.stride(1), length,
        heads, query_blocks, LINEAR=linear, BLOCK=QUERY_BLOCK, DIM=dim, num_warps=8,
    )
    # The keys' mean, which SLA takes off, moves all scores of a query block alike: the order stays.
    chosen = choose(query_means @ key_means.transpose(1, 2), kept_blocks(length, topk))
    return attend(q, k, v, chosen, out, added=linear)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chosen: torch.Tensor, out: torch.Tensor, *,
    added: bool, starts: torch.Tensor | None = None, queries: int = QUERY_BLOCK,
) -> torch.Tensor:
    """Attention of each block of queries to its `chosen` blocks of keys; `out` may hold it, where `added` on top.

    Args:
        q, k, v: [B, L, H, D] bfloat16 as `by_rows` gives them.
        chosen: int32 [B * H, query blocks, kept], in order of place.
        starts: int32 [blocks + 1] where blocks of queries and keys have sizes of their own, up to `queries` and 64.
    """
    if starts is None and flash.takes(q, k):
        attended = flash.flash_attention_to_blocks(q, k, v, chosen, queries, KEY_BLOCK)
        return out.add_(attended) if added else attended
    batch, length, heads, dim = q.shape
    _, query_blocks, kept = chosen.shape
    _attend[(query_blocks, batch * heads)](
        *(_described(x, rows) for x, rows in ((q, queries), (k, KEY_BLOCK), (v, KEY_BLOCK))), chosen,
        chosen if starts is None else starts, out, length, heads, query_blocks, dim**-0.5 * 1.4426950408889634,
        KEPT=kept, ADDED=added, TILED=starts is not None, QUERIES=queries, KEYS=KEY_BLOCK, DIM=dim, STAGES=2,
        num_warps=4,
    )
    return out


def _over_keys(k: torch.Tensor, v: torch.Tensor, linear: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, length, heads, dim = k.shape
    blocks = -(-length // KEY_BLOCK)
    chunks = -(-blocks // CHUNK_BLOCKS)
    means = k.new_empty(batch * heads, blocks, dim, dtype=torch.float32)
    products = k.new_empty(batch * heads, chunks if linear else 1, dim, dim, dtype=torch.float32)
    sums = k.new_empty(batch * heads, chunks if linear else 1, dim, dtype=torch.float32)
    _key_pass[(batch * heads, chunks)](
        k, v, means, products, sums, k.stride(1), length, heads, blocks, chunks,
        LINEAR=linear, CHUNK=CHUNK_BLOCKS, BLOCK=KEY_BLOCK, DIM=dim, STAGES=KEY_STAGES, num_warps=KEY_WARPS,
    )
    return means, products.sum(1), sums.sum(1)


def choose(scores: torch.Tensor, kept: int) -> torch.Tensor:
    """int32 [B * H, query blocks, kept]: each query block's best key blocks, of float32 [.., query, key blocks]."""
    heads, query_blocks, key_blocks = scores.shape
    chosen = torch.empty(heads, query_blocks, kept, dtype=torch.int32, device=scores.device)
    block = triton.next_power_of_2(key_blocks)
    _select[(heads * query_blocks,)](scores, chosen, key_blocks, KEEP=kept, BLOCK=block, num_warps=1)
    return chosen


def _described(x_BLHD: torch.Tensor, rows: int) -> TensorDescriptor:
    batch, length, heads, dim = x_BLHD.shape
    flat = x_BLHD.as_strided((batch * length, heads * dim), (x_BLHD.stride(1), 1))
    return TensorDescriptor.from_tensor(flat, [rows, dim])


def by_rows(x_BLHD: torch.Tensor) -> torch.Tensor:
    """The same with heads side by side and rows at one distance, over the whole batch."""
    _, length, _, dim = x_BLHD.shape
    batch_stride, row_stride, head_stride, channel_stride = x_BLHD.stride()
    side_by_side = head_stride == dim and channel_stride == 1 and row_stride % 8 == 0
    even = x_BLHD.shape[0] == 1 or batch_stride == length * row_stride
    return x_BLHD if side_by_side and even else x_BLHD.contiguous()
