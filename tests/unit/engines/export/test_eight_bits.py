"""Linear layers in eight bits: what torch rounds, the graph rounds, and a real builder takes it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from engines.build.tensorrt import EngineBuildFailed, build_engine
from engines.export.graph import Graph, run_in_torch
from engines.export.onnx import export_graph
from engines.export.quantize import Kind, QuantizedLinear, input_ranges, quantized
from engines.run.onnxrt import OnnxSession
from engines.run.trt_api import TensorRTUnavailable, load_tensorrt_rtx
from engines.store.manifest import Precision
from engines.verify import BARS
from tests.unit.engines.conftest import SHAPE
from video_service.engines.clips import ClipGraphs


class Two(torch.nn.Module):
    """Two layers that bear eight bits and one whose rows are too short to."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 64))
        self.last = torch.nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x))


@pytest.fixture
def graph() -> Graph:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        module, x = Two().eval().requires_grad_(False), torch.randn(2, 40, 64)
    return Graph(name="two", module=module, inputs={"x": x}, outputs=("y",), eight_bits="body.")


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true.double()).norm() / true.double().norm())


@pytest.mark.parametrize(("kind", "bar"), [("int8", 0.02), ("fp8", 0.06)])
def test_a_graph_in_eight_bits_computes_nearly_the_same_and_exactly_what_torch_rounds(
    graph: Graph, tmp_path: Path, kind: Kind, bar: float
) -> None:
    small = quantized(graph, kind, input_ranges(graph, [graph.inputs]))
    true, rounded = (run_in_torch(one, graph.inputs)["y"] for one in (graph, small))
    assert 1e-4 < relative(rounded, true) < bar
    facts = export_graph(small, tmp_path)
    assert (facts.operators["QuantizeLinear"], facts.operators["DequantizeLinear"]) == (2, 4)
    found = OnnxSession(tmp_path / "graph.onnx", threads=1).run(graph.inputs)["y"]
    assert relative(found, rounded) < 1e-3
    stored = {x.name: x.data_type for x in onnx.load(tmp_path / "graph.onnx").graph.initializer}
    eight = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}[kind]
    assert [stored[f"body.{index}.weight"] for index in (0, 2)] == [eight, eight]


def test_each_output_channel_has_a_scale_of_its_own(graph: Graph) -> None:
    """With one scale for all, the fifty times louder channel would leave the others a fiftieth of the levels."""
    layer = graph.module.get_submodule("body.0")
    assert isinstance(layer, torch.nn.Linear)
    layer.weight[3] *= 50
    small = QuantizedLinear(layer, "int8", 4.0)
    assert small.scale.shape == (128,)
    restored = small.weight.float() * small.scale
    others = torch.arange(128) != 3
    assert relative(restored[:, others], layer.weight.T[:, others]) < 0.01


def test_the_original_stays_as_it_was(graph: Graph) -> None:
    before = run_in_torch(graph, graph.inputs)["y"]
    quantized(graph, "int8", input_ranges(graph, [graph.inputs]))
    assert torch.equal(run_in_torch(graph, graph.inputs)["y"], before)
    assert type(graph.module.get_submodule("body.0")) is torch.nn.Linear


def test_ranges_are_the_largest_over_all_examples(graph: Graph) -> None:
    louder = {"x": graph.inputs["x"] * 3}
    ranges = input_ranges(graph, [graph.inputs, louder, graph.inputs])
    assert ranges.keys() == {"body.0", "body.2"}
    assert ranges["body.0"] == pytest.approx(float(louder["x"].abs().max()))


def test_a_layer_that_was_never_seen_is_refused_by_name(graph: Graph) -> None:
    with pytest.raises(ValueError, match=r"what goes into body\.2"):
        quantized(graph, "int8", {"body.0": 1.0})


def test_a_graph_without_a_word_on_eight_bits_keeps_its_layers(graph: Graph) -> None:
    silent = replace(graph, eight_bits="")
    assert input_ranges(silent, [graph.inputs]) == {}
    assert torch.equal(run_in_torch(quantized(silent, "int8", {}), graph.inputs)["y"],
                       run_in_torch(graph, graph.inputs)["y"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", pytest.param("fp8", marks=pytest.mark.full)])
def test_the_transformer_in_eight_bits_stays_under_its_bar_in_onnx_runtime(
    clips: ClipGraphs, tmp_path: Path, precision: Precision
) -> None:
    graph = clips.engine_graphs(SHAPE, precision, "onnx")["transformer"]
    true = run_in_torch(clips.graphs(SHAPE, torch.float32)["transformer"], graph.inputs)["velocity"]
    facts = export_graph(graph, tmp_path)
    assert facts.operators["DequantizeLinear"] >= 2 * 10 - 3  # ten layers; some share what goes in
    found = OnnxSession(tmp_path / "graph.onnx", threads=1).run(graph.inputs)["velocity"]
    assert 1e-3 < relative(found, true) < BARS[precision][0]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "capabilities"), [
    ("int8", ("SM86", "SM89", "SM120")), pytest.param("fp8", ("SM89", "SM120"), marks=pytest.mark.full),
])
def test_tensorrt_rtx_builds_int8_for_all_and_fp8_from_ada_on(
    clips: ClipGraphs, tmp_path: Path, precision: Precision, capabilities: tuple[str, ...]
) -> None:
    rtx = _rtx()
    graph = clips.engine_graphs(SHAPE, precision, "tensorrt-rtx")["transformer"]
    export_graph(graph, tmp_path, attention="fused-half")
    for capability in capabilities:
        assert len(build_engine(rtx, tmp_path / "graph.onnx", capability=capability)) > 10_000
    if precision == "fp8":
        with pytest.raises(EngineBuildFailed, match=r"sm86.*fp8_e4m3"):
            build_engine(rtx, tmp_path / "graph.onnx", capability="SM86")


def _rtx() -> Any:
    try:
        return load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))
