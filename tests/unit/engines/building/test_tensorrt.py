"""TensorRT-RTX's real builder on a machine without a GPU, and every way in which it fails."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.build.tensorrt import RTX_CAPABILITIES, EngineBuildFailed, build_engine
from engines.export.graph import DTYPES, Graph, run_in_torch
from engines.export.onnx import export_graph
from engines.run.onnxrt import OnnxSession
from engines.run.trt_api import TensorRTUnavailable, as_api, load_tensorrt_rtx
from engines.run.trt_protocol import TensorRT
from engines.run.trt_session import open_engine
from engines.store.manifest import EngineRefused
from tests.unit.engines.conftest import SHAPE
from video_service.engines.clips import ClipGraphs
from video_service.families.wan.files import WAN_GRAPHS

BAR_FP16 = 5e-3


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    try:
        return load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    export_graph(Graph(name="double", module=Double(), inputs={"x": torch.ones(2, 3)}, outputs=("y",)), folder)
    return folder / "graph.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("name", [  # eight and more seconds a graph for the same exporter and the same builder
    pytest.param(name, marks=() if name == "transformer" else pytest.mark.full)
    for name in WAN_GRAPHS
])
def test_fp16_graphs_agree_with_torch_and_build_for_every_rtx_generation(
    rtx: TensorRT, clips: ClipGraphs, tmp_path: Path, name: str
) -> None:
    graph, true = clips.graphs(SHAPE, torch.float16)[name], clips.graphs(SHAPE, torch.float32)[name]
    export_graph(graph, tmp_path, attention="fused-half")
    found = OnnxSession(tmp_path / "graph.onnx", threads=1).run(graph.inputs)
    inputs = {key: x.to(true.inputs[key].dtype) for key, x in graph.inputs.items()}
    for key, expected in run_in_torch(true, inputs).items():
        assert float((found[key].float() - expected).norm() / expected.norm()) < BAR_FP16, key
    _build_for_all(rtx, tmp_path / "graph.onnx")


@pytest.mark.full
@pytest.mark.parametrize("name", WAN_GRAPHS)
def test_bf16_graphs_build_for_every_rtx_generation(
    rtx: TensorRT, clips: ClipGraphs, tmp_path: Path, name: str
) -> None:
    export_graph(clips.graphs(SHAPE, DTYPES["bf16"])[name], tmp_path, attention="fused-half")
    _build_for_all(rtx, tmp_path / "graph.onnx")


def _build_for_all(rtx: TensorRT, path: Path) -> None:
    engines = {name: build_engine(rtx, path, capability=name) for name in RTX_CAPABILITIES}
    assert all(len(engine) > 10_000 for engine in engines.values())
    assert len(set(engines.values())) >= 2  # not one engine under three names


def test_a_graph_that_does_not_parse_is_told_in_tensorrts_words(rtx: TensorRT, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], domain="")
    graph = helper.make_graph([node], "g", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.raises(EngineBuildFailed, match=r"does not parse: .*NoSuchOperator"):
        build_engine(rtx, tmp_path / "graph.onnx", capability="SM89")


def test_a_damaged_onnx_file_is_a_parse_failure(rtx: TensorRT, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"not onnx at all")
    with pytest.raises(EngineBuildFailed, match=r"does not parse"):
        build_engine(rtx, tmp_path / "graph.onnx", capability="SM89")


def test_a_gpu_that_rtx_does_not_know_is_refused_with_those_it_does(rtx: TensorRT, small: Path) -> None:
    with pytest.raises(EngineBuildFailed, match=r"cannot build for SM90; it knows .*SM86.*SM120"):
        build_engine(rtx, small, capability="SM90")


def test_a_builder_that_makes_nothing_is_a_failure_with_the_logged_cause(rtx: TensorRT, small: Path) -> None:
    with pytest.raises(EngineBuildFailed, match=r"made nothing: out of workspace"):
        build_engine(spoiled(rtx, says="out of workspace"), small, capability="SM89")
    with pytest.raises(EngineBuildFailed, match=r"made nothing: no cause given"):
        build_engine(spoiled(rtx, says=None), small, capability="SM89")


def spoiled(api: TensorRT, says: str | None) -> Any:
    return _Spoiled(api, says)


class _Spoiled:
    """The real library, but its builder returns None after it has logged `says`."""

    def __init__(self, api: TensorRT, says: str | None) -> None:
        self._api, self._says = api, says

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def Builder(self, logger: Any) -> Any:
        real, says, severity = self._api.Builder(logger), self._says, self._api.ILogger.Severity

        class Builder:
            create_network = staticmethod(real.create_network)
            create_builder_config = staticmethod(real.create_builder_config)

            def build_serialized_network(self, network: Any, config: Any) -> None:
                if says:
                    logger.log(severity.ERROR, says)

        return Builder()


def test_bytes_that_are_no_engine_are_refused_in_tensorrts_words(rtx: TensorRT) -> None:
    with pytest.raises(EngineRefused, match=r"Serialization|CUDA|serialization"):
        open_engine(rtx, b"x" * 1000)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_an_engine_is_refused_not_run(rtx: TensorRT, small: Path) -> None:
    engine = build_engine(rtx, small, capability="SM89")
    with pytest.raises(EngineRefused, match=r"(?i)cuda|gpu|driver"):
        open_engine(rtx, engine)


def test_a_module_that_lacks_a_part_is_refused_by_name() -> None:
    with pytest.raises(ImportError, match=r"ctypes lacks .*Builder"):
        as_api(ctypes)
