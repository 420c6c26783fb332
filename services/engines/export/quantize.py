"""Linear layers in eight bits, written into the graph as QuantizeLinear and DequantizeLinear.

Weights are stored in eight bits with a scale for each output channel; activations get one scale each, from the largest
number seen while the graph ran on a few examples. An engine that has kernels for it multiplies the eight-bit numbers
themselves; any other computes what the pairs say. In torch such a layer computes the same rounding.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from onnxscript import opset23 as onnxscript_opset23
from torch import nn

from engines.export.copies import with_shared_weights
from engines.export.graph import Graph

Kind = Literal["int8", "fp8"]
KINDS: Mapping[str, Kind] = {"int8": "int8", "fp8": "fp8"}

_FORMATS: Mapping[str, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_LARGEST: Mapping[str, float] = {"int8": 127.0, "fp8": 448.0}
_ALIGNED = 16  # kernels want rows of so many numbers

op: Any = onnxscript_opset23  # its operators are typed for code inside a script


def input_ranges(graph: Graph, examples: Iterable[Mapping[str, torch.Tensor]]) -> dict[str, float]:
    """The largest magnitude that went into each layer that can be quantized, by its name, over all examples."""
    ranges: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            ranges[name] = max(ranges.get(name, 0.0), float(inputs[0].abs().max()))

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in _layers(graph).items()]
    try:
        with torch.inference_mode():
            for example in examples:
                graph.module(*example.values())
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def quantized(graph: Graph, kind: Kind, ranges: Mapping[str, float]) -> Graph:
    """The graph with every layer that `ranges` names in eight bits; all else and the original's module stay."""
    module = with_shared_weights(graph.module)
    found = replace(graph, module=module)
    for name, layer in _layers(found).items():
        if name not in ranges:
            raise ValueError(f"{graph.name}: nothing is known of what goes into {name}")
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, QuantizedLinear(layer, kind, ranges[name]))
    return found


class QuantizedLinear(nn.Module):
    """A linear layer of eight-bit weights [in, out], with scales [out], and one scale for what goes in."""

    def __init__(self, layer: nn.Linear, kind: Kind, largest_input: float) -> None:
        super().__init__()
        weight = layer.weight.detach().float().T
        scale = (weight.abs().amax(dim=0) / _LARGEST[kind]).clamp_min(1e-12).to(layer.weight.dtype)
        self.kind = kind
        self.weight = nn.Buffer(_rounded(weight / scale.float(), kind).contiguous())
        self.scale = nn.Buffer(scale)
        self.input_scale = nn.Buffer(torch.tensor(max(largest_input, 1e-6) / _LARGEST[kind]).to(scale.dtype))
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # As a matrix: of a batch of them, ONNX Runtime 1.31 makes a graph with mixed eight-bit types and refuses it.
        rows = torch.ops.stillmotion.eight_bit_matmul(x.flatten(0, -2), self.weight, self.scale, self.input_scale)
        rows = rows if self.bias is None else rows + self.bias
        return rows.unflatten(0, x.shape[:-1])


@torch.library.custom_op("stillmotion::eight_bit_matmul", mutates_args=())
def eight_bit_matmul(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, input_scale: torch.Tensor
) -> torch.Tensor:
    """x [rows, in] rounded to eight bits, times weight [in, out], in the format of x."""
    kind = "int8" if weight.dtype == torch.int8 else "fp8"
    rounded = _rounded(x.float() / input_scale.float(), kind).to(x.dtype) * input_scale
    return F.linear(rounded, (weight.to(scale.dtype) * scale).T)


@eight_bit_matmul.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, input_scale: torch.Tensor) -> torch.Tensor:
    return x.new_empty((len(x), weight.shape[1]))


def _in_onnx(x: Any, weight: Any, scale: Any, input_scale: Any) -> Any:
    zero = op.CastLike(op.Constant(value_float=0.0), weight)
    rounded = op.DequantizeLinear(op.QuantizeLinear(x, input_scale, zero), input_scale, zero)
    return op.MatMul(rounded, op.DequantizeLinear(weight, scale, axis=1))


TRANSLATION: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.stillmotion.eight_bit_matmul.default: _in_onnx,
}
"""For the exporter."""


def _rounded(x: torch.Tensor, kind: str) -> torch.Tensor:
    limits = torch.finfo(torch.float8_e4m3fn) if kind == "fp8" else torch.iinfo(torch.int8)
    x = x.round() if kind == "int8" else x
    return x.clamp(limits.min, limits.max).to(_FORMATS[kind])


def _layers(graph: Graph) -> dict[str, nn.Linear]:
    return {
        name: layer for name, layer in graph.module.named_modules()
        if graph.eight_bits and name.startswith(graph.eight_bits) and isinstance(layer, nn.Linear)
        and layer.in_features % _ALIGNED == 0 and layer.out_features % _ALIGNED == 0
    }
