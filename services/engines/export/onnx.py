"""A graph into an ONNX file, by torch's dynamo exporter, and what must hold of every such file."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from engines.export.attention import AttentionForm, opset_of, translation_of
from engines.export.graph import Graph
from engines.export.quantize import TRANSLATION

MODEL_NAME = "graph.onnx"

_FORBIDDEN = frozenset({"Loop", "If", "Range", "Scan", "SequenceConstruct", "NonZero"})
_SMALL = 2**16
_TOLERANCE = 1e-4
_FOLDED = 1024  # shapes, axes and scalars, and constants folded into one


class ExportFailed(Exception):
    """The graph cannot be exported, or not in a form that every engine takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """What is in an exported file."""

    nodes: int
    weights: int
    """Elements of all initializers."""
    operators: Mapping[str, int]


def export_graph(graph: Graph, folder: Path, *, attention: AttentionForm = "fused") -> ExportFacts:
    """Write `graph` into `folder` (which must exist) as graph.onnx with its weights in graph.onnx.data.

    Raises:
        ExportFailed: torch cannot export it, or the file holds control flow or a dynamic shape.
    """
    path = folder / MODEL_NAME
    try:
        with torch.inference_mode(), _quiet():
            program = torch.onnx.export(
                graph.module.eval(), tuple(graph.inputs.values()), dynamo=True, opset_version=opset_of(attention),
                input_names=list(graph.inputs), output_names=list(graph.outputs), verbose=False,
                custom_translation_table={**translation_of(attention), **TRANSLATION},
            )
        assert program is not None
        assert program.exported_program is not None
        program.save(path, external_data=True)
    except (RuntimeError, TypeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportFailed(f"{graph.name} cannot be exported: {error}") from error
    facts = check_exported(graph, path, opset_of(attention))
    check_weights(graph, facts.weights, used_elements(program.exported_program))
    return facts


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a word on torchvision's operators, which no graph here has."""
    told = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = told.level
    told.setLevel(logging.ERROR)
    try:
        yield
    finally:
        told.setLevel(level)


def used_elements(program: torch.export.ExportedProgram) -> tuple[int, int]:
    """Elements of the parameters, buffers and constants that the traced graph reads, at least and at most.

    Which equal tensors the exporter stores once is its own affair; a fresh checkpoint has many, a trained one none.
    """
    tensors = {**program.state_dict, **program.constants}
    named = {
        spec.arg.name: spec.target for spec in program.graph_signature.input_specs
        if spec.target is not None and hasattr(spec.arg, "name")
    }
    read = [tensors[named[node.name]] for node in program.graph.nodes if node.name in named and node.users]
    distinct = {_identity(x): x.numel() for x in read if isinstance(x, torch.Tensor)}
    return sum(distinct.values()), sum(x.numel() for x in read if isinstance(x, torch.Tensor))


def _identity(x: torch.Tensor) -> object:
    if x.numel() > _SMALL or x.dtype == torch.float8_e4m3fn:
        return x.data_ptr()
    return x.dtype, tuple(x.shape), x.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def check_weights(graph: Graph, stored: int, used: tuple[int, int]) -> None:
    """Raise `ExportFailed` where the file lacks weights that the module reads, or holds a table that it computes."""
    least, most = used
    if not least * (1 - _TOLERANCE) - _FOLDED <= stored <= most * (1 + _TOLERANCE) + _FOLDED:
        raise ExportFailed(f"{graph.name}: the file holds {stored} numbers, the module reads {most}")


def check_exported(graph: Graph, path: Path, opset: int) -> ExportFacts:
    """Raise `ExportFailed` unless the file has the graph's names, fixed shapes, one opset and no control flow."""
    model = onnx.load(path, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    if found := _FORBIDDEN & operators.keys():
        raise ExportFailed(f"{graph.name}: {', '.join(sorted(found))} is left in the graph")
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    if names != (list(graph.inputs), list(graph.outputs)):
        raise ExportFailed(f"{graph.name}: the exported names are {names}")
    for value in (*model.graph.input, *model.graph.output):
        if any(not side.HasField("dim_value") for side in value.type.tensor_type.shape.dim):
            raise ExportFailed(f"{graph.name}: {value.name} has no fixed shape")
    if opset not in {entry.version for entry in model.opset_import if entry.domain == ""}:
        raise ExportFailed(f"{graph.name}: the opset is not {opset}")
    weights = sum(_elements(tensor) for tensor in model.graph.initializer)
    return ExportFacts(nodes=len(model.graph.node), weights=weights, operators=dict(operators))


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for side in tensor.dims:
        count *= side
    return count
