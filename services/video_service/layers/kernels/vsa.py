"""VSA in Triton: one kernel of its own, for the tiles' means; choice and attention are SLA's, over tiles of any size.

Their reference is `attention.vsa.VideoSparseAttention` in torch.
"""
# Triton comes with the CUDA builds of torch alone, and its decorator hides what a kernel is.
# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl

from video_service.layers.attention.vsa import SLOTS, Tiles
from video_service.layers.kernels.sla import attend, by_rows, choose


@triton.jit
def _tile_means(x, starts, means, row_stride, length, heads, tiles, ROWS: tl.constexpr, DIM: tl.constexpr):
    pair, tile = tl.program_id(0), tl.program_id(1)
    batch, head = pair // heads, pair % heads
    first, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    rows = first + tl.arange(0, ROWS)
    channels = tl.arange(0, DIM)
    at = (batch * length + rows).to(tl.int64)[:, None] * row_stride + head * DIM + channels[None, :]
    value = tl.load(x + at, mask=(rows < end)[:, None], other=0.0).to(tl.float32)
    tl.store(means + (pair * tiles + tile).to(tl.int64) * DIM + channels, tl.sum(value, axis=0) / (end - first))


def video_sparse_attention(
    q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, gate_BLHD: torch.Tensor, tiles: Tiles, kept: int
) -> torch.Tensor:
    """[B, L, H, D] bfloat16, D 64 or 128, tile by tile."""
    q, k, v = (by_rows(x) for x in (q_BLHD, k_BLHD, v_BLHD))
    batch, _, heads, dim = q.shape
    q_means, k_means, v_means = (_means(x, tiles) for x in (q, k, v))
    scores = q_means @ k_means.transpose(1, 2) * dim**-0.5
    coarse = (scores.softmax(-1) @ v_means).to(q.dtype)
    # The attention adds to what lies where it writes.
    out = (coarse.unflatten(0, (batch, heads)).transpose(1, 2)[:, tiles.of_place] * gate_BLHD).contiguous()
    return attend(q, k, v, choose(scores, kept), out, added=True, starts=tiles.starts, queries=SLOTS)


def _means(x_BLHD: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """float32 [B * H, tiles, D]."""
    batch, length, heads, dim = x_BLHD.shape
    means = x_BLHD.new_empty(batch * heads, tiles.count, dim, dtype=torch.float32)
    _tile_means[(batch * heads, tiles.count)](
        x_BLHD, tiles.starts, means, x_BLHD.stride(1), length, heads, tiles.count, ROWS=SLOTS, DIM=dim, num_warps=4)
    return means
