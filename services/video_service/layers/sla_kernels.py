"""SLA in Triton: three kernels and a small top-k. Their reference is `attention.SparseLinearAttention` in torch.

One pass over the keys and values gives each key block's mean and the linear branch's keysᵀ·values. `proj_l` is linear
and the linear branch divides whole rows, so it is folded into that D x D product, and the branch costs the attention
kernel one more small product a query block.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from video_service.layers.attention import KEY_BLOCK, QUERY_BLOCK, kept_blocks

CHUNK_BLOCKS = 16  # key blocks that one program sums up


@triton.jit
def _query_means(x, means, row_stride, length, heads, blocks, BLOCK: tl.constexpr, DIM: tl.constexpr):
    block = tl.program_id(0)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    rows = block * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, DIM)
    at = (batch * length + rows).to(tl.int64)[:, None] * row_stride + head * DIM + channels[None, :]
    value = tl.load(x + at, mask=(rows < length)[:, None], other=0.0).to(tl.float32)
    count = tl.minimum(length - block * BLOCK, BLOCK)
    tl.store(means + (tl.program_id(1) * blocks + block) * DIM + channels, tl.sum(value, axis=0) / count)


@triton.jit
def _key_pass(
    k, v, means, products, sums, row_stride, length, heads, blocks, chunks,
    LINEAR: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, DIM: tl.constexpr,
):
    chunk = tl.program_id(0)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    channels = tl.arange(0, DIM)
    product = tl.zeros((DIM, DIM), tl.float32)
    total = tl.zeros((DIM,), tl.float32)
    for step in range(0, CHUNK):
        block = chunk * CHUNK + step
        rows = block * BLOCK + tl.arange(0, BLOCK)
        mask = (rows < length)[:, None]
        at = (batch * length + rows).to(tl.int64)[:, None] * row_stride + head * DIM + channels[None, :]
        key = tl.load(k + at, mask=mask, other=0.0).to(tl.float32)
        mean = tl.sum(key, axis=0) / tl.minimum(length - block * BLOCK, BLOCK)
        tl.store(means + (tl.program_id(1) * blocks + block) * DIM + channels, mean, mask=block < blocks)
        if LINEAR:
            feature = tl.exp(key - tl.max(key, axis=1)[:, None])
            feature = tl.where(mask, feature / tl.sum(feature, axis=1)[:, None], 0.0)
            total += tl.sum(feature, axis=0)
            value = tl.load(v + at, mask=mask, other=0.0)
            product = tl.dot(tl.trans(feature.to(value.dtype)), value, product)
    if LINEAR:
        place = tl.program_id(1) * chunks + chunk
        tl.store(sums + place * DIM + channels, total)
        square = channels[:, None] * DIM + channels[None, :]
        tl.store(products + place.to(tl.int64) * DIM * DIM + square, product)


@triton.jit
def _attend(
    q, k, v, chosen, products, sums, bias, out, length, heads, blocks, scale,
    KEPT: tl.constexpr, LINEAR: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr,
):
    block = tl.program_id(0)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first, column = batch * length, head * DIM
    query = q.load([first + block * QUERIES, column])
    listed = chosen + (tl.program_id(1) * blocks + block) * KEPT
    within = tl.arange(0, KEYS)
    largest = tl.full((QUERIES,), -1e30, tl.float32)
    weight = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, DIM), tl.float32)
    # Two key blocks a round halve the rescaling; an odd last one is paired with an empty block past the end.
    for index in range(0, KEPT, 2):
        one = tl.load(listed + index) * KEYS
        two = tl.load(listed + index + 1) * KEYS
        scores_one = tl.dot(query, k.load([first + one, column]).T) * scale
        scores_two = tl.dot(query, k.load([first + two, column]).T) * scale
        scores_one = tl.where((one + within < length)[None, :], scores_one, -1e30)
        scores_two = tl.where((two + within < length)[None, :], scores_two, -1e30)
        top = tl.maximum(tl.max(scores_one, axis=1), tl.max(scores_two, axis=1))
        top = tl.maximum(largest, top)
        fade = tl.exp2(largest - top)
        p_one = tl.exp2(scores_one - top[:, None])
        p_two = tl.exp2(scores_two - top[:, None])
        weight = weight * fade + tl.sum(p_one, axis=1) + tl.sum(p_two, axis=1)
        total = total * fade[:, None]
        total = tl.dot(p_one.to(query.dtype), v.load([first + one, column]), total)
        total = tl.dot(p_two.to(query.dtype), v.load([first + two, column]), total)
        largest = top
    total = total / weight[:, None]
    channels = tl.arange(0, DIM)
    if LINEAR:
        wide = query.to(tl.float32)
        feature = tl.exp(wide - tl.max(wide, axis=1)[:, None])
        feature = feature / tl.sum(feature, axis=1)[:, None]
        below = tl.sum(feature * tl.load(sums + tl.program_id(1) * DIM + channels)[None, :], axis=1) + 1e-5
        square = channels[:, None] * DIM + channels[None, :]
        product = tl.load(products + tl.program_id(1) * DIM * DIM + square)
        linear = tl.dot(feature.to(query.dtype), product) / below[:, None]
        total = total + linear + tl.load(bias + channels)[None, :]
    rows = block * QUERIES + tl.arange(0, QUERIES)
    at = (first + rows).to(tl.int64)[:, None] * (heads * DIM) + column + channels[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=(rows < length)[:, None])


def sparse_linear_attention(
    q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, topk: float,
    proj_weight: torch.Tensor | None, proj_bias: torch.Tensor | None,
) -> torch.Tensor:
    """[B, L, H, D] bfloat16, D 64 or 128; heads lie side by side in memory, rows at an equal distance."""
    q, k, v = (_by_rows(x) for x in (q_BLHD, k_BLHD, v_BLHD))
    batch, length, heads, dim = q.shape
    if k.stride(1) != v.stride(1):
        k, v = k.contiguous(), v.contiguous()
    query_blocks = -(-length // QUERY_BLOCK)
    linear = proj_weight is not None
    query_means = q.new_empty(batch * heads, query_blocks, dim, dtype=torch.float32)
    _query_means[(query_blocks, batch * heads)](
        q, query_means, q.stride(1), length, heads, query_blocks, BLOCK=QUERY_BLOCK, DIM=dim)
    key_means, products, sums = _over_keys(k, v, linear)
    chosen = _choose(query_means, key_means, length, kept_blocks(length, topk))
    bias = query_means
    if proj_weight is not None:
        products, bias = products @ proj_weight.T, proj_bias
    out = torch.empty(batch, length, heads, dim, dtype=q.dtype, device=q.device)
    _attend[(query_blocks, batch * heads)](
        *(_described(x, rows) for x, rows in ((q, QUERY_BLOCK), (k, KEY_BLOCK), (v, KEY_BLOCK))),
        chosen, products.to(q.dtype), sums, bias, out, length, heads, query_blocks, dim**-0.5 * 1.4426950408889634,
        KEPT=chosen.shape[-1], LINEAR=linear, QUERIES=QUERY_BLOCK, KEYS=KEY_BLOCK, DIM=dim, num_warps=8, num_stages=2,
    )
    return out


def _over_keys(k: torch.Tensor, v: torch.Tensor, linear: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, length, heads, dim = k.shape
    blocks = -(-length // KEY_BLOCK)
    chunks = -(-blocks // CHUNK_BLOCKS)
    means = k.new_empty(batch * heads, blocks, dim, dtype=torch.float32)
    products = k.new_empty(batch * heads, chunks if linear else 1, dim, dim, dtype=torch.float32)
    sums = k.new_empty(batch * heads, chunks if linear else 1, dim, dtype=torch.float32)
    _key_pass[(chunks, batch * heads)](
        k, v, means, products, sums, k.stride(1), length, heads, blocks, chunks,
        LINEAR=linear, CHUNK=CHUNK_BLOCKS, BLOCK=KEY_BLOCK, DIM=dim, num_warps=8,
    )
    return means, products.sum(1), sums.sum(1)


def _choose(query_means: torch.Tensor, key_means: torch.Tensor, length: int, kept: int) -> torch.Tensor:
    """int32 [B * H, query blocks, kept], made even with the number of a block past the end."""
    blocks = key_means.shape[1]
    short = blocks * KEY_BLOCK - length
    total = key_means.sum(1) * KEY_BLOCK - key_means[:, -1] * short
    scores = query_means @ (key_means - (total / length)[:, None]).transpose(1, 2)
    chosen = scores.topk(kept, dim=-1, sorted=False).indices.int()
    return F.pad(chosen, (0, kept % 2), value=blocks).contiguous()


def _described(x_BLHD: torch.Tensor, rows: int) -> TensorDescriptor:
    batch, length, heads, dim = x_BLHD.shape
    flat = x_BLHD.as_strided((batch * length, heads * dim), (x_BLHD.stride(1), 1))
    return TensorDescriptor.from_tensor(flat, [rows, dim])


def _by_rows(x_BLHD: torch.Tensor) -> torch.Tensor:
    _, length, _, dim = x_BLHD.shape
    batch_stride, row_stride, head_stride, channel_stride = x_BLHD.stride()
    side_by_side = head_stride == dim and channel_stride == 1 and row_stride % 8 == 0
    even = x_BLHD.shape[0] == 1 or batch_stride == length * row_stride
    return x_BLHD if side_by_side and even else x_BLHD.contiguous()
