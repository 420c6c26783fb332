"""Muon for the transformer's matrices, all matrices of one shape orthogonalised in one batch.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); update scaled by
0.2 sqrt(max(rows, columns)) to AdamW's size, as in "Muon is scalable for LLM training" (2025).
"""

import math

import torch


def orthogonalise(update_NRC: torch.Tensor) -> torch.Tensor:
    """Nearest (semi-)orthogonal matrices by five quintic Newton-Schulz steps in bfloat16."""
    x = update_NRC.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Nesterov momentum, orthogonalised; `lr` means what it means for AdamW."""

    def __init__(
        self, parameters: list[torch.nn.Parameter], momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        self.groups = [(group, torch.zeros(len(group), *shape, device=group[0].device))
                       for shape, group in by_shape.items()]
        self.momentum, self.weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every parameter from its gradient."""
        for group, buffer in self.groups:
            gradient = torch.stack([p.grad for p in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            scale = 0.2 * math.sqrt(max(update.shape[1:]))
            torch._foreach_mul_(group, 1 - lr * self.weight_decay)
            torch._foreach_add_(group, list(update.unbind()), alpha=-lr * scale)
