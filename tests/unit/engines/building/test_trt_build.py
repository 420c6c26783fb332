"""How plans are built: flags, timings, progress, and every way to fail, over each recorded surface."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.build.tensorrt import EngineBuildFailed, PlanOptions, build_plan
from engines.export.graph import Graph
from engines.export.onnx import export_graph
from engines.run.trt_api import TensorRTUnavailable, load_tensorrt_rtx
from engines.run.trt_protocol import TensorRT, view
from engines.store.kept_bytes import KeptBytes
from tests.trt_surface.fake import FakeTensorRT, Script
from tests.trt_surface.surface import read_surface

ALL = ("tensorrt-10", "tensorrt-11", "tensorrt-rtx")
GRAPH = Path("graph.onnx")


def fake(name: str, **script: Any) -> Any:
    return FakeTensorRT(read_surface(name), Script(**script))


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    try:
        return load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("linear")
    module = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64)).eval()
    export_graph(Graph(name="linear", module=module, inputs={"x": torch.ones(2, 64)}, outputs=("y",)), folder)
    return folder / "graph.onnx"


@pytest.mark.parametrize("name", ALL)
def test_networks_are_strongly_typed_and_no_flag_is_set_unasked(name: str) -> None:
    api = fake(name)
    assert build_plan(api, GRAPH, PlanOptions()) == b"plan"
    flag = 1 << api.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert api.called("Builder", "create_network") == [(flag,)]
    assert api.called("IBuilderConfig", "set_flag") == []


@pytest.mark.parametrize("name", ALL)
def test_streaming_and_refitting_are_flags_of_the_build(name: str) -> None:
    api = fake(name)
    build_plan(api, GRAPH, PlanOptions(stream_weights=True, refit=True))
    flags = api.BuilderFlag
    assert api.called("IBuilderConfig", "set_flag") == [(flags.WEIGHT_STREAMING,), (flags.REFIT,)]


@pytest.mark.parametrize("name", ["tensorrt-10", "tensorrt-11"])
def test_tensorrt_for_data_centres_builds_for_no_other_gpu(name: str) -> None:
    with pytest.raises(EngineBuildFailed, match=r"cannot build for SM89; it knows no other GPU than the one"):
        build_plan(fake(name), GRAPH, PlanOptions(capability="SM89"))


@pytest.mark.parametrize("name", ALL)
def test_a_parse_error_names_the_node(name: str) -> None:
    api = fake(name, parse_errors=["no such operator", "nor this"])
    with pytest.raises(EngineBuildFailed, match=r"does not parse: Conv /node: no such operator; Conv /node: nor this"):
        build_plan(api, GRAPH, PlanOptions())


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ((), "made nothing: no cause given"),
        (("Could not find any implementation for node X",), "made nothing: Could not find any implementation"),
        (("Error Code 2: OutOfMemory (Requested size was 9 bytes)",), r"made nothing: .*OutOfMemory.*smaller size"),
        (("std::bad_alloc",), r"bad_alloc.*Stop what else uses the memory"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_a_builder_that_makes_nothing_is_told_with_what_to_do(name: str, says: tuple[str, ...], words: str) -> None:
    with pytest.raises(EngineBuildFailed, match=words):
        build_plan(fake(name, plan=None, says=says), GRAPH, PlanOptions())


@pytest.mark.parametrize("name", ALL)
def test_timings_go_into_the_next_build_and_another_builders_are_not_lost(name: str, tmp_path: Path) -> None:
    kept = KeptBytes(tmp_path / "timings")
    kept.update(lambda _: b"old")
    api = fake(name, timings=b"new")

    def progress(phase: str, fraction: float) -> None:
        kept.update(lambda _: b"others")  # meanwhile

    build_plan(api, GRAPH, PlanOptions(timings=kept, progress=progress))
    assert api.called("IBuilderConfig", "create_timing_cache")[0] == (b"old",)
    assert kept.read() == b"new+old+others"


def test_timings_of_another_gpu_are_left_out(tmp_path: Path) -> None:
    kept = KeptBytes(tmp_path / "timings")
    kept.update(lambda _: b"foreign")
    api = fake("tensorrt-11", timings=b"new")
    build_plan(api, GRAPH, PlanOptions(timings=kept))
    used = [cache.values["name"] for cache, _ in api.called("IBuilderConfig", "set_timing_cache")]
    assert used == [b"foreign", b""]


@pytest.mark.parametrize("name", ALL)
def test_progress_is_told_in_fractions(name: str) -> None:
    told: list[tuple[str, float]] = []
    build_plan(fake(name), GRAPH, PlanOptions(progress=lambda *step: told.append(step)))
    assert told == [("Building", 0.5), ("Building", 1.0), ("Building", 1.0)]


def test_the_real_builder_tells_progress_that_only_grows(rtx: TensorRT, linear: Path) -> None:
    told: list[float] = []
    build_plan(rtx, linear, PlanOptions(capability="SM89", progress=lambda _, fraction: told.append(fraction)))
    assert len(told) > 20
    assert told[-1] == 1.0
    assert all(later >= earlier for earlier, later in itertools.pairwise(told))


def test_an_interruption_ends_the_real_build_and_is_not_lost(rtx: TensorRT, linear: Path) -> None:
    """An exception that left the library's call back would end the process."""
    steps = 0

    def interrupt(phase: str, fraction: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(rtx, linear, PlanOptions(capability="SM89", progress=interrupt))
    assert steps == 5


def test_the_real_builder_makes_a_plan_whose_weights_can_be_streamed_without_a_gpu(
    rtx: TensorRT, linear: Path
) -> None:
    plan = build_plan(rtx, linear, PlanOptions(capability="SM120", stream_weights=True))
    assert view(plan).nbytes > 10_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_real_builder_needs_a_gpu_for_a_refittable_plan_and_that_is_told(rtx: TensorRT, linear: Path) -> None:
    with pytest.raises(EngineBuildFailed, match=r"refittable engine is built on a machine with the GPU"):
        build_plan(rtx, linear, PlanOptions(capability="SM89", refit=True))
