"""Weights in eight bits, for steps that do little but read them."""

from dataclasses import dataclass

import torch

_AT_ONCE = 2**24  # numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Float8:
    """A weight in eight bits, a scale for each of its outputs."""

    numbers: torch.Tensor
    """float8_e4m3fn [out, in]."""
    scale: torch.Tensor
    """float32 [out]."""

    @classmethod
    def of(cls, weight: torch.Tensor) -> "Float8":
        """On the weight's device; a few outputs at a time: in float32, 7B's head would take 6.5 GB beside itself."""
        numbers = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
        scale = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
        step = max(1, _AT_ONCE // weight.shape[1])
        for start in range(0, len(weight), step):
            part = weight[start : start + step].float()
            own = scale[start : start + step] = part.abs().amax(1).clamp_min(1e-12) / 448.0
            numbers[start : start + step] = (part / own[:, None]).to(torch.float8_e4m3fn)
        return cls(numbers=numbers, scale=scale)
