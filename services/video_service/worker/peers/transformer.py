"""The transformer that several ranks compute, called on the first of them as any other."""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from video_service.layers.attention.ulysses import Ulysses
from video_service.layers.wan.fast import FastTransformer
from video_service.layers.wan.transformer import Sparse
from web.worker.errors import DeviceBroken

if TYPE_CHECKING:  # which makes these
    from video_service.worker.peers.group import PeerGroup


class SplitTransformer(FastTransformer):
    """What each rank calls: a step of which it computes its share, or one that is its alone, for the first rank."""

    def __init__(self, transformer: Any, *, fp8: bool = False, sparse: Sparse | None = None) -> None:
        super().__init__(transformer, fp8=fp8, sparse=sparse, split=Ulysses())

    def negative(
        self, latents_BCTHW: torch.Tensor, times_B: torch.Tensor, text_BLC: torch.Tensor, seen_BLC: torch.Tensor | None
    ) -> None:
        """The second rank's of guidance's two."""
        velocity = self._velocity(latents_BCTHW, times_B, text_BLC, seen_BLC, alone=True)
        dist.broadcast(velocity.contiguous(), 1)


class ParallelTransformer(SplitTransformer):
    """Each call is one of all ranks."""

    def __init__(
        self, transformer: Any, group: "PeerGroup", *, fp8: bool = False, sparse: Sparse | None = None
    ) -> None:
        super().__init__(transformer, fp8=fp8, sparse=sparse)
        self._group = group
        self._number = group.load(self, partial(SplitTransformer, transformer, fp8=fp8, sparse=sparse))

    def like(self, transformer: Any) -> "ParallelTransformer":
        return ParallelTransformer(transformer, self._group, fp8=self._fp8, sparse=self._sparse)

    def __call__(
        self, latents_BCTHW: torch.Tensor, times_B: torch.Tensor, text_BLC: torch.Tensor,
        seen_BLC: torch.Tensor | None = None, *, return_dict: bool,
    ) -> tuple[torch.Tensor]:
        """Raises `DeviceBroken` for whatever goes wrong: the other ranks are in the middle of it."""
        try:
            self._group.call(self._number, latents_BCTHW, float(times_B[0]), text_BLC, seen_BLC)
            found = super().__call__(latents_BCTHW, times_B, text_BLC, seen_BLC, return_dict=return_dict)
            self._group.time_step()
        except Exception as error:
            raise DeviceBroken("a step over several devices failed") from error
        return found

    def both(
        self, latents_BCTHW: torch.Tensor, times_B: torch.Tensor, text_BLC: torch.Tensor, negative_BLC: torch.Tensor,
        seen_BLC: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """On two ranks one each, where they were asked to: nothing is exchanged but what comes of it."""
        if not self._group.guides:
            return super().both(latents_BCTHW, times_B, text_BLC, negative_BLC, seen_BLC)
        try:
            self._group.call(
                self._number, latents_BCTHW, float(times_B[0]), negative_BLC, seen_BLC, is_negative=True)
            velocity = self._velocity(latents_BCTHW, times_B, text_BLC, seen_BLC, alone=True)
            without = torch.empty_like(velocity, memory_format=torch.contiguous_format)
            dist.broadcast(without, 1)
            self._group.time_step()
        except Exception as error:
            raise DeviceBroken("a step over several devices failed") from error
        return velocity, without
