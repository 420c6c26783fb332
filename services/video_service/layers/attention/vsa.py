"""VSA (Video Sparse Attention), https://github.com/hao-ai-lab/FastVideo, as FastWan was taught.

    tiles = Tiles.of((21, 30, 52), device)      # a clip's tokens in tiles of 4x4x4
    x = x[:, tiles.order]                       # tile by tile; `x[:, tiles.back]` undoes it
    out = VideoSparseAttention(topk=0.2)(q, k, v, gate, tiles)          # [B, L, H, D] each, tile by tile

Each tile attends coarsely to the means of all tiles, which each of its tokens takes by its own `gate`; and exactly to
the tokens of the tiles that the coarse attention weighs most. Both add up. A tile at the clip's far ends may hold fewer
tokens than 64. Their kernels round the means and the scores to bfloat16, ours to float32.
"""

import importlib.util
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

SIDES = (4, 4, 4)
SLOTS = math.prod(SIDES)
_TOGETHER = 16  # tiles of queries whose keys are gathered at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Where the L tokens of a clip lie once they are ordered tile by tile."""

    order: torch.Tensor
    """int64 [L]: the clip's token at each place."""
    back: torch.Tensor
    """int64 [L]: the place of each of the clip's tokens."""
    starts: torch.Tensor
    """int32 [tiles + 1]: each tile's first place, and L."""
    of_place: torch.Tensor
    """int64 [L]: the tile at each place."""

    @classmethod
    def of(cls, grid: tuple[int, int, int], device: torch.device) -> "Tiles":
        """Of a clip of so many tokens in time, height and width."""
        across = [torch.arange(length, device=device) // side for length, side in zip(grid, SIDES, strict=True)]
        counts = [-(-length // side) for length, side in zip(grid, SIDES, strict=True)]
        tile_THW = ((across[0][:, None, None] * counts[1] + across[1][:, None]) * counts[2] + across[2]).flatten()
        of_place, order = tile_THW.sort(stable=True)  # within a tile as in the clip
        sizes = torch.bincount(of_place, minlength=math.prod(counts))
        return cls(
            order=order, back=order.argsort(), of_place=of_place,
            starts=F.pad(sizes.cumsum(0), (1, 0)).to(torch.int32))

    @property
    def count(self) -> int:
        return len(self.starts) - 1


def kept_tiles(count: int, topk: float) -> int:
    """How many tiles each tile attends to, with their rounding: of 624 a fifth is 125."""
    sparsity = 1 - topk
    return max(1, min(math.ceil((1 - sparsity) * count), count))


class VideoSparseAttention(nn.Module):
    """See the module's text. `topk` is the share of tiles attended to."""

    def __init__(self, topk: float) -> None:
        super().__init__()
        self.topk = topk

    def forward(
        self, q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, gate_BLHD: torch.Tensor, tiles: Tiles
    ) -> torch.Tensor:
        kept = kept_tiles(tiles.count, self.topk)
        if runs_by_kernel(q_BLHD):
            from video_service.layers.kernels import vsa as vsa_kernels

            return vsa_kernels.video_sparse_attention(q_BLHD, k_BLHD, v_BLHD, gate_BLHD, tiles, kept)
        q, k, v = (_tile_means(x, tiles) for x in (q_BLHD, k_BLHD, v_BLHD))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        coarse = (scores.softmax(-1) @ v).to(q_BLHD.dtype)
        chosen = scores.topk(kept, dim=-1).indices
        fine = _attend_to_tiles(q_BLHD, k_BLHD, v_BLHD, chosen, tiles)
        return fine + coarse.transpose(1, 2)[:, tiles.of_place] * gate_BLHD


@dataclass(frozen=True, slots=True, kw_only=True)
class Vsa:
    """Video sparse attention in every block, each of which has a layer `to_gate_compress`."""

    topk: float

    def of_block(self, index: int) -> VideoSparseAttention:
        return VideoSparseAttention(self.topk)

    def __str__(self) -> str:
        return f"sparse attention to {self.topk:.0%} of the tiles, a gated coarse one beside it"


def runs_by_kernel(q_BLHD: torch.Tensor) -> bool:
    fits = q_BLHD.is_cuda and q_BLHD.dtype == torch.bfloat16 and q_BLHD.shape[-1] in (64, 128)
    return fits and importlib.util.find_spec("triton") is not None


def _tile_means(x_BLHD: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """float32 [B, H, tiles, D]."""
    batch, _, heads, dim = x_BLHD.shape
    sums = x_BLHD.new_zeros(batch, tiles.count, heads, dim, dtype=torch.float32)
    sums.index_add_(1, tiles.of_place, x_BLHD.float())
    return (sums / tiles.starts.diff()[:, None, None]).transpose(1, 2)


def _attend_to_tiles(
    q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, chosen_BHQK: torch.Tensor, tiles: Tiles
) -> torch.Tensor:
    """Exact attention of each tile to its chosen ones, whose tokens are gathered for a few tiles at a time."""
    starts = tiles.starts.long()
    slots = starts[:-1, None] + torch.arange(SLOTS, device=q_BLHD.device)  # [tiles, slots]
    real = slots < starts[1:, None]
    slots = slots.clamp_max(q_BLHD.shape[1] - 1)
    queries, keys, values = (x.transpose(1, 2)[:, :, slots] for x in (q_BLHD, k_BLHD, v_BLHD))
    done = []
    for some, own in zip(chosen_BHQK.split(_TOGETHER, 2), queries.split(_TOGETHER, 2), strict=True):
        where = some.flatten(2)[..., None, None]
        near, worth = (
            torch.take_along_dim(x, where, 2).unflatten(2, some.shape[2:]).flatten(3, 4) for x in (keys, values))
        done.append(F.scaled_dot_product_attention(own, near, worth, real[some].flatten(3)[:, :, :, None]))
    return torch.cat(done, 2)[:, :, real].transpose(1, 2)
