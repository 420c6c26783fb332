"""Weights in eight bits: a scale for every row, so that a checkpoint stays small enough for a repository."""

import torch
from torch import Tensor

LEAST_NUMBERS = 1024  # smaller tensors are norms and biases: they save nothing and matter much
_LARGEST = 127
_SCALE = ".scale"


def packed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with `NAME.scale`, float32 `[rows]`, beside them; other floats in half precision.

    A number moves by 1/254 of the largest in its row at most.
    """
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        value = value.detach().cpu()
        if not value.is_floating_point():
            found[name] = value.contiguous()
        elif value.ndim < 2 or value.numel() < LEAST_NUMBERS:
            found[name] = value.half().contiguous()
        else:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(1).clamp(min=1e-12) / _LARGEST
            found[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape).contiguous()
            found[name + _SCALE] = scale
    return found


def unpacked(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` was given, in float32; whole numbers as they are."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in weights:
            continue
        scale = weights.get(name + _SCALE)
        if scale is not None:
            found[name] = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
        else:
            found[name] = value.float() if value.is_floating_point() else value
    return found
