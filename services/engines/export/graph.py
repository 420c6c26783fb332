"""What one exported graph is: a module, inputs of fixed shape, and the names that its tensors have outside torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def dtype_of(precision: str, target: str) -> torch.dtype:
    """The format of what goes in and out, and of all that is not in eight bits."""
    if precision in DTYPES:
        return DTYPES[precision]
    return torch.float32 if target == "onnx" else torch.bfloat16  # a CPU has no bfloat16 kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One graph of a family: all that an exporter, a verifier or a builder needs to know of it."""

    name: str
    module: nn.Module
    """Takes the inputs in order, returns a tensor or a tuple of them; no branch depends on a tensor."""
    inputs: Mapping[str, torch.Tensor]
    """Seeded examples of the only shapes and dtypes that the graph takes."""
    outputs: tuple[str, ...]
    eight_bits: str = ""
    """Where the linear layers are that bear eight bits: the beginning of their names; empty: none do."""


def run_in_torch(graph: Graph, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The module's own outputs, by name."""
    with torch.inference_mode():
        results = graph.module(*inputs.values())
    results = results if isinstance(results, tuple) else (results,)
    return dict(zip(graph.outputs, results, strict=True))
