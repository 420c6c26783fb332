"""The processes that train together, one a GPU: one clock, averaged gradients. One process alone needs no set-up."""

import os
import time

import torch
import torch.distributed as dist


class Fleet:
    """This process among its peers, as torchrun started it."""

    def __init__(self, device: str) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if self.size > 1:
            dist.init_process_group("nccl" if device == "cuda" else "gloo")
        self.device = device
        self.start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the start by rank 0's clock, so that all take the same decisions."""
        seconds = torch.tensor([time.monotonic() - self.start], device=self.device)
        if self.size > 1:
            dist.broadcast(seconds, 0)
        return float(seconds)

    def wait(self) -> None:
        """Until all have come this far."""
        if self.size > 1:
            dist.barrier()

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.size).split([g.numel() for g in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def agree(self, parameters: list[torch.nn.Parameter]) -> None:
        """Copy rank 0's weights to all, which rounding lets drift apart."""
        if self.size > 1:
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)
