"""FastVideo's video sparse attention and its few-step sampler, as their files write them, in float64.

Sources, https://github.com/hao-ai-lab/FastVideo at 2f3d407: `fastvideo/attention/backends/video_sparse_attn.py`,
`fastvideo-kernel/python/fastvideo_kernel/ops.py` (`video_sparse_attn`), `fastvideo/pipelines/stages/denoising.py`
(`DmdDenoisingStage`) with `fastvideo/models/utils.py` and its Euler scheduler.
"""

import math
from typing import Any

import torch

Grid = tuple[int, int, int]
TILE = (4, 4, 4)
STEPS = (1000, 757, 522)


def tile_partition(grid: Grid) -> torch.Tensor:
    """Their `get_tile_partition_indices`."""
    (t, h, w), (ts, hs, ws) = grid, TILE
    indices = torch.arange(t * h * w).reshape(t, h, w)
    return torch.cat([
        indices[i * ts:i * ts + ts, j * hs:j * hs + hs, k * ws:k * ws + ws].flatten()
        for i in range(math.ceil(t / ts)) for j in range(math.ceil(h / hs)) for k in range(math.ceil(w / ws))])


def block_sizes(grid: Grid) -> torch.Tensor:
    """Their `construct_variable_block_sizes`."""
    sides = []
    for length, tile in zip(grid, TILE, strict=True):
        sizes = torch.full((math.ceil(length / tile),), tile)
        sizes[-1] = length - (len(sizes) - 1) * tile
        sides.append(sizes)
    return (sides[0][:, None, None] * sides[1][None, :, None] * sides[2][None, None, :]).reshape(-1)


def video_sparse_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: torch.Tensor, grid: Grid, sparsity: float
) -> torch.Tensor:
    """[B, L, H, D] each, in the clip's order: padded into tiles, attended to, and back."""
    sizes, elements = block_sizes(grid), math.prod(TILE)
    blocks = len(sizes)
    starts = torch.arange(blocks) * elements
    non_pad = (starts[:, None] + torch.arange(elements))[torch.arange(elements) < sizes[:, None]]
    partition = tile_partition(grid)

    def tiled(x: torch.Tensor) -> torch.Tensor:
        padded = torch.zeros(x.shape[0], blocks * elements, *x.shape[2:], dtype=torch.float64)
        padded[:, non_pad] = x[:, partition].double()
        return padded.transpose(1, 2)

    q, k, v, gate = (tiled(x) for x in (q, k, v, gate))
    means = [x.unflatten(2, (blocks, elements)).sum(3) / sizes[:, None] for x in (q, k, v)]
    scores = means[0] @ means[1].transpose(-2, -1) / q.shape[-1] ** 0.5
    coarse = (scores.softmax(-1) @ means[2]).repeat_interleave(elements, 2)
    topk = max(1, min(math.ceil((1 - sparsity) * blocks), blocks))
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(topk, -1).indices, True)
    real = torch.zeros(blocks * elements, dtype=torch.bool).index_fill_(0, non_pad, True)
    full = mask.repeat_interleave(elements, 2).repeat_interleave(elements, 3) & real
    logits = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~full, -torch.inf)
    out = coarse * gate + logits.softmax(-1) @ v
    return out.transpose(1, 2)[:, non_pad][:, partition.argsort()]


def dmd(network: Any, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The latents that three steps make of the noise; `network(x, timestep)` is its velocity."""
    sigmas = torch.arange(1000, 0, -1, dtype=torch.float32) / 1000
    sigmas = 8.0 * sigmas / (1 + 7.0 * sigmas)
    timesteps = sigmas * 1000

    def sigma(timestep: int) -> torch.Tensor:
        return sigmas[(timesteps - timestep).abs().argmin()].double()

    x = noise
    for index, timestep in enumerate(STEPS):
        clean = x.double() - sigma(timestep) * network(x, timestep).double()
        if index + 1 == len(STEPS):
            return clean
        after = sigma(STEPS[index + 1])
        x = ((1 - after) * clean + after * torch.randn(noise.shape, generator=generator)).float()
    raise AssertionError
