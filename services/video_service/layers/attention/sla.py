"""TurboDiffusion's SLA (sparse-linear attention), https://github.com/thu-ml/TurboDiffusion.

    heads = SparseLinearAttention(topk=0.1, proj_weight=weight, proj_bias=bias)     # of one block: `proj_l`
    out = heads(q, k, v)                                                            # [B, L, H, D] each

SLA keeps, for each block of 128 queries, the best tenth of the blocks of 64 keys; attends to those exactly; and adds a
linear attention over all keys, through `proj_l`. Without `proj_l` the linear branch is left out, which is what its
zeros at the start of training mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

QUERY_BLOCK = 128
KEY_BLOCK = 64
_EPS = 1e-5


class SparseLinearAttention(nn.Module):
    """See the module's text. `topk` is the share of key blocks kept."""

    def __init__(self, topk: float, proj_weight: torch.Tensor | None, proj_bias: torch.Tensor | None) -> None:
        super().__init__()
        self.topk = topk
        self.proj_weight = None if proj_weight is None else nn.Buffer(proj_weight.float())
        self.proj_bias = None if proj_bias is None else nn.Buffer(proj_bias.float())

    def forward(self, q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor) -> torch.Tensor:
        if runs_by_kernel(q_BLHD):
            from video_service.layers.kernels import sla as sla_kernels

            return sla_kernels.sparse_linear_attention(
                q_BLHD, k_BLHD, v_BLHD, self.topk, self.proj_weight, self.proj_bias)
        chosen = choose_blocks(q_BLHD, k_BLHD, self.topk)
        out = attend_to_blocks(q_BLHD, k_BLHD, v_BLHD, chosen)
        if self.proj_weight is not None:
            linear = linear_attention(q_BLHD, k_BLHD, v_BLHD).float()
            out = out + F.linear(linear, self.proj_weight, self.proj_bias).to(out.dtype)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Sla:
    """Sparse-linear attention in every block."""

    topk: float
    projections: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None
    """Each block's `proj_l` weight and bias; None leaves the linear branch out."""

    def of_block(self, index: int) -> SparseLinearAttention:
        weight, bias = (None, None) if self.projections is None else self.projections[index]
        return SparseLinearAttention(self.topk, weight, bias)

    def __str__(self) -> str:
        beside = "" if self.projections is None else ", a linear branch beside it"
        return f"sparse attention to {self.topk:.0%} of the keys{beside}"


def runs_by_kernel(q_BLHD: torch.Tensor) -> bool:
    return q_BLHD.is_cuda and q_BLHD.dtype == torch.bfloat16 and q_BLHD.shape[-1] in (64, 128)


def kept_blocks(length: int, topk: float) -> int:
    """How many key blocks each query block keeps."""
    return max(1, int(topk * -(-length // KEY_BLOCK)))


def choose_blocks(q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, topk: float) -> torch.Tensor:
    """int64 [B, H, query blocks, kept]: the key blocks whose mean lies nearest the queries' mean, the best first."""
    queries = _block_means(q_BLHD, QUERY_BLOCK)
    keys = _block_means(k_BLHD, KEY_BLOCK) - k_BLHD.float().mean(1)[:, :, None]
    scores = queries @ keys.transpose(2, 3)
    return scores.topk(kept_blocks(k_BLHD.shape[1], topk), dim=-1).indices


def _block_means(x_BLHD: torch.Tensor, block: int) -> torch.Tensor:
    """float32 [B, H, blocks, D]; a last block that is not full averages what it has."""
    length = x_BLHD.shape[1]
    padded = F.pad(x_BLHD.float(), (0, 0, 0, 0, 0, -length % block)).unflatten(1, (-1, block))
    counts = torch.full((padded.shape[1], 1), float(block), device=x_BLHD.device)
    counts[-1] = (length - 1) % block + 1
    return padded.sum(2).transpose(1, 2) / counts


def attend_to_blocks(
    q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor, chosen_BHQK: torch.Tensor
) -> torch.Tensor:
    """Exact attention of each query block to its chosen key blocks, gathered: memory grows with what is kept."""
    length = q_BLHD.shape[1]
    kept = chosen_BHQK.shape[-1]
    queries = _blocks(q_BLHD, QUERY_BLOCK)
    where = chosen_BHQK.flatten(2)[..., None, None]
    keys, values = (
        torch.take_along_dim(_blocks(x, KEY_BLOCK), where, 2).unflatten(2, (-1, kept)).flatten(3, 4)
        for x in (k_BLHD, v_BLHD)
    )
    position = chosen_BHQK[..., None] * KEY_BLOCK + torch.arange(KEY_BLOCK, device=q_BLHD.device)
    mask = (position < k_BLHD.shape[1]).flatten(3)[:, :, :, None]
    out = F.scaled_dot_product_attention(queries, keys, values, mask)
    return out.flatten(2, 3).transpose(1, 2)[:, :length]


def _blocks(x_BLHD: torch.Tensor, block: int) -> torch.Tensor:
    """[B, H, blocks, block, D], the last one filled up with zeros."""
    padded = F.pad(x_BLHD, (0, 0, 0, 0, 0, -x_BLHD.shape[1] % block))
    return padded.transpose(1, 2).unflatten(2, (-1, block))


def linear_attention(q_BLHD: torch.Tensor, k_BLHD: torch.Tensor, v_BLHD: torch.Tensor) -> torch.Tensor:
    """Linear attention with softmax over channels as the feature map of queries and keys; float32 inside."""
    q, k, v = (x.float().transpose(1, 2) for x in (q_BLHD, k_BLHD, v_BLHD))
    q, k = q.softmax(-1), k.softmax(-1)
    out = (q @ (k.transpose(2, 3) @ v)) / (q @ k.sum(2)[..., None] + _EPS)
    return out.transpose(1, 2).to(q_BLHD.dtype)
