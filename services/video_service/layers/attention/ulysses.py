"""Ulysses (DeepSpeed, https://arxiv.org/abs/2309.14509): a clip's tokens split over the ranks of a process group.

    own = split.own(x)                          # [B, L, ...] -> [B, share, ...]: what this rank computes
    qkv = split.to_heads(qkv, length)           # [B, share, P, H, D] -> [B, L, P, H / ranks, D]
    out = split.to_tokens(attention(*qkv))      # [B, L, H / ranks, D] -> [B, share, H * D]
    x = split.whole(own, length)                # [B, share, C] -> [B, L, C]

Everything between is by token, so each rank computes its own; around self-attention the ranks exchange tokens for
heads. All ranks call the same in the same order. Where the length does not divide, the last ranks' shares end with
zeros, which `to_heads` drops: attention never sees them. Within a CUDA graph the exchanges are nodes of it.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F


class Ulysses:
    """Of the default process group, which must be there."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, length: int) -> int:
        """Tokens a rank."""
        return -(-length // self.size)

    def own(self, x_BL: torch.Tensor) -> torch.Tensor:
        """This rank's tokens of [B, L, ...]."""
        share = self.share(x_BL.shape[1])
        if missing := share * self.size - x_BL.shape[1]:
            x_BL = F.pad(x_BL, [0, 0] * (x_BL.ndim - 2) + [0, missing])
        return x_BL[:, self.rank * share : (self.rank + 1) * share]

    def to_heads(self, x_BSPHD: torch.Tensor, length: int) -> torch.Tensor:
        """P parts, such as queries, keys and values, of this rank's tokens to those of all tokens, for its heads."""
        sent = _laid_out(x_BSPHD.unflatten(3, (self.size, -1)), 3, 0, 1, 2, 4, 5)
        return _exchanged(sent).transpose(0, 1).flatten(1, 2)[:, :length]

    def to_tokens(self, x_BLHD: torch.Tensor) -> torch.Tensor:
        """What its heads gave for all tokens to what all heads gave for this rank's, side by side."""
        length, x = x_BLHD.shape[1], x_BLHD.flatten(2)
        share = self.share(length)
        if missing := share * self.size - length:
            x = F.pad(x, (0, 0, 0, missing))
        sent = x.unflatten(1, (self.size, share)).transpose(0, 1).contiguous()
        return _laid_out(_exchanged(sent), 1, 2, 0, 3).flatten(2)

    def whole(self, x_BSC: torch.Tensor, length: int) -> torch.Tensor:
        """All ranks' tokens."""
        found = x_BSC.new_empty(self.size, *x_BSC.shape)
        dist.all_gather(list(found.unbind()), x_BSC.contiguous())
        return found.transpose(0, 1).flatten(1, 2)[:, :length]


def _laid_out(x: torch.Tensor, *order: int) -> torch.Tensor:
    """The dimensions in that order in memory too, the last as it is: copied 16 bytes at a time where they are whole.

    A strided copy pays by the element: of bfloat16 it moved 1.4 TB/s of an H200's 4.3.
    """
    whole = x.shape[-1] * x.element_size() % 16 == 0
    wide = x.view(torch.complex128) if whole else x
    return wide.permute(order).contiguous().view(x.dtype)


def _exchanged(sent: torch.Tensor) -> torch.Tensor:
    """Of each rank what it had at this rank's place [ranks, ...]."""
    found = torch.empty_like(sent)
    dist.all_to_all_single(found, sent)
    return found
