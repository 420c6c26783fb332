"""TensorRT and TensorRT-RTX on a GPU: what the tests over recorded surfaces say, by the libraries themselves."""

from pathlib import Path

import pytest
import torch

from engines.build.tensorrt import PlanOptions, build_plan
from engines.export.graph import Graph
from engines.export.onnx import export_graph
from engines.run.gpu import CudaGpu
from engines.run.trt_api import TensorRTUnavailable, load_tensorrt, load_tensorrt_rtx
from engines.run.trt_memory import share_memory
from engines.run.trt_protocol import TensorRT, view
from engines.run.trt_refit import refit
from engines.run.trt_session import RunOptions, TrtSession, open_engine
from engines.store.cuda import cuda_capability
from engines.store.gpus import RTX_RUNS_ON, name_gpu
from engines.store.kept_bytes import KeptBytes
from engines.store.manifest import EngineRefused

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda")
WIDTH = 256


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def api(request: pytest.FixtureRequest) -> TensorRT:
    """The library, where it is installed and runs on this GPU."""
    rtx = request.param == "tensorrt-rtx"
    if rtx and cuda_capability() not in RTX_RUNS_ON:
        pytest.skip(f"TensorRT-RTX does not run on {name_gpu(cuda_capability())}")
    try:
        return load_tensorrt_rtx() if rtx else load_tensorrt()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.SiLU(), torch.nn.Linear(WIDTH, WIDTH)
    ).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def onnx_path(net: torch.nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    export_graph(Graph(name="net", module=net, inputs={"x": torch.ones(4, WIDTH)}, outputs=("y",)), folder)
    return folder / "graph.onnx"


def plan_for(api: TensorRT, path: Path, *, stream_weights: bool = False, refit: bool = False) -> bytes:
    capability = cuda_capability() if hasattr(api, "ComputeCapability") else None
    options = PlanOptions(capability=capability, stream_weights=stream_weights, refit=refit)
    return bytes(view(build_plan(api, path, options)))


def session_of(api: TensorRT, plan: bytes, options: RunOptions | None = None) -> TrtSession:
    return TrtSession(api, *open_engine(api, plan), CudaGpu(CUDA), options or RunOptions())


@pytest.mark.parametrize("cuda_graph", [False, True])
@torch.inference_mode()
def test_an_engine_computes_what_torch_does_and_each_step_has_memory_of_its_own(
    api: TensorRT, net: torch.nn.Sequential, onnx_path: Path, tmp_path: Path, cuda_graph: bool
) -> None:
    options = RunOptions(cuda_graph=cuda_graph, kernels=KeptBytes(tmp_path / "kernels"))
    session = session_of(api, plan_for(api, onnx_path), options)
    inputs = [torch.randn(4, WIDTH, device=CUDA) for _ in range(5)]
    with torch.cuda.stream(torch.cuda.Stream()):
        found = [session.run({"x": x})["y"] for x in inputs]
        torch.cuda.current_stream().synchronize()
    true = [net.to(CUDA)(x) for x in inputs]
    net.to("cpu")
    for y, expected in zip(found, true, strict=True):
        assert float((y - expected).norm() / expected.norm()) < 5e-3
    assert len({y.data_ptr() for y in found}) == 5


@torch.inference_mode()
def test_weights_that_are_streamed_compute_the_same(
    api: TensorRT, onnx_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(4, WIDTH, device=CUDA)
    true = session_of(api, plan_for(api, onnx_path)).run({"x": x})["y"]
    engine, said = open_engine(api, plan_for(api, onnx_path, stream_weights=True))
    gpu = CudaGpu(CUDA)
    monkeypatch.setattr(gpu, "free_bytes", lambda: 0)
    assert share_memory({"net": engine}, {"net"}, gpu) == {"net": True}
    found = TrtSession(api, engine, said, gpu, RunOptions(streams_weights=True)).run({"x": x})["y"]
    assert float((found - true).norm() / true.norm()) < 5e-3


@torch.inference_mode()
def test_refitted_weights_are_computed_with(api: TensorRT, net: torch.nn.Sequential, onnx_path: Path) -> None:
    engine, said = open_engine(api, plan_for(api, onnx_path, refit=True))
    other = {name: x * 0.5 for name, x in net.state_dict().items()}
    refit(api, engine, other)
    x = torch.randn(4, WIDTH, device=CUDA)
    found = TrtSession(api, engine, said, CudaGpu(CUDA), RunOptions()).run({"x": x})["y"]
    true = torch.func.functional_call(net, other, (x.cpu(),)).to(CUDA)
    assert float((found - true).norm() / true.norm()) < 5e-3
    plan = engine.serialize()
    assert plan is not None
    again = session_of(api, bytes(view(plan))).run({"x": x})["y"]
    assert float((again - true).norm() / true.norm()) < 5e-3


def test_an_rtx_engine_of_another_gpu_is_refused_in_tensorrts_words(
    onnx_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also on a GPU that TensorRT-RTX does not run on at all, such as an H200. Prints the words."""
    try:
        rtx = load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))
    other = "SM120" if cuda_capability() != "SM120" else "SM89"
    plan = bytes(view(build_plan(rtx, onnx_path, PlanOptions(capability=other))))
    with pytest.raises(EngineRefused) as caught:
        open_engine(rtx, plan)
    with capsys.disabled():
        print(f"\n{name_gpu(cuda_capability())} says of an engine for {other}: {caught.value}")
