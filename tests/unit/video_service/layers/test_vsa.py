"""Video sparse attention: against FastVideo's formula, and against one written out token by token."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.checkpoints import fastvideo
from video_service.layers.attention.vsa import Tiles, VideoSparseAttention, kept_tiles

Grid = tuple[int, int, int]


def normal(grid: Grid, batch: int = 1) -> list[torch.Tensor]:
    torch.manual_seed(sum(grid))
    return list(torch.randn(4, batch, math.prod(grid), 2, 16))


def ours(parts: list[torch.Tensor], grid: Grid, topk: float) -> torch.Tensor:
    tiles = Tiles.of(grid, torch.device("cpu"))
    return VideoSparseAttention(topk)(*(x[:, tiles.order] for x in parts), tiles)[:, tiles.back]


def written_out(parts: list[torch.Tensor], grid: Grid, topk: float) -> torch.Tensor:
    """Each token by itself: which tile it lies in is reckoned from its place alone."""
    q, k, v, gate = (x[0].double() for x in parts)
    of = [(t // 4, h // 4, w // 4) for t in range(grid[0]) for h in range(grid[1]) for w in range(grid[2])]
    members = {tile: [index for index, own in enumerate(of) if own == tile] for tile in sorted(set(of))}
    kept = max(1, math.ceil(len(members) * topk - 1e-9))
    out = torch.empty_like(q)
    for token, tile in enumerate(of):
        for head in range(q.shape[1]):
            middle = q[members[tile], head].mean(0)
            weights = torch.stack([k[own, head].mean(0) @ middle for own in members.values()]) / q.shape[2] ** 0.5
            coarse = weights.softmax(0) @ torch.stack([v[own, head].mean(0) for own in members.values()])
            near = [index for place in weights.topk(kept).indices for index in list(members.values())[int(place)]]
            fine = (k[near, head] @ q[token, head] / q.shape[2] ** 0.5).softmax(0) @ v[near, head]
            out[token, head] = fine + gate[token, head] * coarse
    return out[None]


@pytest.mark.parametrize(("grid", "topk"), [((4, 8, 8), 0.5), ((3, 7, 9), 0.2), ((1, 5, 2), 0.4)])
def test_it_is_the_form_written_out_token_by_token(grid: Grid, topk: float) -> None:
    parts = normal(grid)
    torch.testing.assert_close(ours(parts, grid, topk).double(), written_out(parts, grid, topk), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("grid", "batch"), [((5, 7, 13), 1), ((8, 8, 12), 2)])
def test_it_is_fastvideo_s(grid: Grid, batch: int) -> None:
    parts = normal(grid, batch)
    q, k, v, gate = parts
    theirs = fastvideo.video_sparse_attention(q, k, v, gate, grid, 0.8)
    torch.testing.assert_close(ours(parts, grid, 0.2).double(), theirs, rtol=1e-5, atol=1e-5)
    assert (ours(parts, grid, 0.4).double() - theirs).abs().max() > 0.1


def test_all_tiles_and_no_gate_are_dense_attention() -> None:
    q, k, v, gate = normal((5, 6, 7))
    dense = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours([q, k, v, 0 * gate], (5, 6, 7), 1.0), dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("grid", "count", "kept"), [
    ((21, 30, 52), 624, 125), ((16, 28, 52), 364, 73), ((1, 1, 1), 1, 1)])
def test_a_fifth_of_the_tiles_is_kept(grid: Grid, count: int, kept: int) -> None:
    tiles = Tiles.of(grid, torch.device("cpu"))
    assert (tiles.count, kept_tiles(tiles.count, 1 - 0.8)) == (count, kept)
    assert torch.equal(tiles.order, fastvideo.tile_partition(grid))
    assert torch.equal(tiles.starts.diff().long(), fastvideo.block_sizes(grid))
