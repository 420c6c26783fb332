"""Frames [T, H, W, C] whose rows are split over the ranks of a process group, the first rows to the first rank.

Each layer of the VAE's decoder sees one row beyond its own at most, which `lend` fetches; so the split is exact. All
ranks call the same in the same order, and the height is a multiple of their number. Works within a CUDA graph.
"""

import torch
import torch.distributed as dist


class Bands:
    """Of the default process group, which must be there."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._near = [int(abs(other - self.rank) == 1) for other in range(self.size)]

    def own(self, x_THWC: torch.Tensor) -> torch.Tensor:
        """This rank's rows of all."""
        return x_THWC.chunk(self.size, 1)[self.rank]

    def lend(self, x_THWC: torch.Tensor) -> None:
        """Fill the first and the last row, which lie beyond this rank's, with its neighbours'; not past the frame."""
        above, below = self.rank > 0, self.rank + 1 < self.size
        sent = torch.stack([x_THWC[:, 1]] * above + [x_THWC[:, -2]] * below)
        found = torch.empty_like(sent)
        dist.all_to_all_single(found, sent, self._near, self._near)
        if above:
            x_THWC[:, 0] = found[0]
        if below:
            x_THWC[:, -1] = found[-1]

    def whole(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """All ranks' parts of a dimension."""
        found = x.new_empty(self.size, *x.shape)
        dist.all_gather(list(found.unbind()), x.contiguous())
        return torch.cat(found.unbind(), dim)
