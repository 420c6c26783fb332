"""Copies of modules over the same weights: with norms that stay in float32 whatever those are, or without numbers.

Float32 within a half-precision module is casts in the graph, which a strongly typed TensorRT keeps.
"""

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


class Float32LayerNorm(nn.LayerNorm):
    """Computes in float32 and rounds once."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(
            input.float(), self.normalized_shape, _float(self.weight), _float(self.bias), self.eps
        ).to(input.dtype)


class Float32GroupNorm(nn.GroupNorm):
    """Computes in float32 and rounds once."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.group_norm(
            input.float(), self.num_groups, _float(self.weight), _float(self.bias), self.eps
        ).to(input.dtype)


def rms_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """transformers' T5 or Qwen norm `norm` of the last axis of x, in float32; the result has the weight's format.

    They round before they multiply by the weight, in mixed formats; an exporter that recognises the norm then writes
    an operator that no engine takes.
    """
    wide = F.rms_norm(x.float(), norm.weight.shape, norm.weight.float(), norm.variance_epsilon)
    return wide.to(norm.weight.dtype)


class _Float32RMSNorm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(self, x)


def with_shared_weights(module: _Module) -> _Module:
    """A copy of the module tree over the same parameters and buffers."""
    shared = {id(x): x for x in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo=dict(shared))


def without_numbers(module: _Module) -> _Module:
    """A copy that computes shapes only, on torch's meta device; it takes no memory."""
    empty: dict[int, Any] = {
        **{id(x): nn.Parameter(x.detach().to("meta"), requires_grad=False) for x in module.parameters()},
        **{id(x): x.to("meta") for x in module.buffers()},
    }
    return copy.deepcopy(module, memo=empty)


def with_float32_norms(module: _Module) -> _Module:
    """A copy over the same weights whose layer, group and RMS norms compute in float32."""
    copied = with_shared_weights(module)
    for part in copied.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = Float32GroupNorm
        elif type(part) is nn.LayerNorm:
            part.__class__ = Float32LayerNorm
        elif hasattr(part, "variance_epsilon"):
            part.__class__ = _Float32RMSNorm
    return copied


def _float(x: torch.Tensor | None) -> torch.Tensor | None:
    return None if x is None else x.float()
