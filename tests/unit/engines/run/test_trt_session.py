"""How engines run: what a session hands to TensorRT, over each recorded surface, and what it makes of every refusal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from engines.run.trt_memory import HEADROOM_BYTES, Needs, share_memory, weight_budgets
from engines.run.trt_refit import refit
from engines.run.trt_session import RunOptions, TrtSession, open_engine
from engines.store.manifest import EngineRefused
from tests.trt_surface.fake import FakeTensorRT, Script
from tests.trt_surface.fake_gpu import FakeGpu
from tests.trt_surface.surface import read_surface
from video_service.worker.program import explain

ALL = ("tensorrt-10", "tensorrt-11", "tensorrt-rtx")
X = torch.arange(6, dtype=torch.float32).reshape(2, 3)


def double(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": inputs["x"] * 2}


def doubling(**changes: Any) -> Script:
    kind = ((2, 3), "FLOAT")
    return Script(**{"inputs": {"x": kind}, "outputs": {"y": kind}, "compute": double} | changes)


def fake(name: str, script: Script) -> Any:
    return FakeTensorRT(read_surface(name), script)


def session_of(api: Any, gpu: Any = None, **options: Any) -> TrtSession:
    return TrtSession(api, *open_engine(api, b"plan"), gpu or FakeGpu(api), RunOptions(**options))


class Kept:
    """A cache in memory."""

    def __init__(self, blob: bytes = b"") -> None:
        self.blob = blob

    def read(self) -> bytes:
        return self.blob

    def update(self, change: Any) -> None:
        self.blob = change(self.blob)


@pytest.mark.parametrize("name", ALL)
def test_torchs_own_memory_and_stream_are_what_tensorrt_computes_on(name: str) -> None:
    api = fake(name, doubling())
    found = session_of(api).run({"x": X})["y"]
    assert torch.equal(found, X * 2)
    assert dict(api.called("IExecutionContext", "set_tensor_address")) == {"x": X.data_ptr(), "y": found.data_ptr()}
    assert api.called("IExecutionContext", "execute_async_v3") == [(77,)]


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_no_step_overwrites_what_an_earlier_one_returned(name: str, cuda_graph: bool) -> None:
    """A multistep sampler still reads the velocity of the step before."""
    session = session_of(fake(name, doubling()), cuda_graph=cuda_graph)
    found = [session.run({"x": X + step})["y"] for step in range(4)]
    for step, y in enumerate(found):
        assert torch.equal(y, (X + step) * 2)
    assert len({y.data_ptr() for y in found}) == 4


@pytest.mark.parametrize("name", ALL)
def test_an_output_goes_where_it_is_wanted_without_a_copy(name: str) -> None:
    api = fake(name, doubling())
    place = torch.zeros(2, 3)
    found = session_of(api).run({"x": X}, {"y": place})["y"]
    assert found is place
    assert torch.equal(place, X * 2)
    assert ("y", place.data_ptr()) in api.called("IExecutionContext", "set_tensor_address")


@pytest.mark.parametrize("name", ["tensorrt-10", "tensorrt-11"])
def test_a_cuda_graph_is_captured_once_and_replayed(name: str) -> None:
    """The first run is not captured, for TensorRT sets up in it; later ones queue no kernel by themselves."""
    api = fake(name, doubling())
    gpu = FakeGpu(api)
    session = session_of(api, gpu, cuda_graph=True)
    for step in range(5):
        assert torch.equal(session.run({"x": X + step})["y"], (X + step) * 2)
    assert api.called("IExecutionContext", "execute_async_v3") == [(77,), (88,)]  # run, then captured
    assert gpu.waited == 1


def test_rtx_captures_graphs_itself_and_keeps_the_kernels_that_it_compiled() -> None:
    api, kept = fake("tensorrt-rtx", doubling()), Kept(b"of last time")
    session = session_of(api, cuda_graph=True, kernels=kept)
    assert api.called("IRuntimeCache", "deserialize") == [(b"of last time",)]
    for _ in range(3):
        session.run({"x": X})
    assert kept.blob == b"kernels"
    assert len(api.called("IRuntimeCache", "serialize")) == 1
    assert api.called("IExecutionContext", "execute_async_v3") == [(77,)] * 3


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "lacks its input x"),
        ({"x": torch.zeros(2, 4)}, r"takes x as .*\(2, 3\)"),
        ({"x": torch.zeros(2, 3, dtype=torch.float16)}, r"takes x as .*float32.*, not .*float16"),
        ({"x": X, "z": X}, r"takes z as None"),
    ],
)
def test_what_does_not_fit_is_refused_before_tensorrt_reads_it_as_garbage(
    inputs: dict[str, torch.Tensor], words: str
) -> None:
    api = fake("tensorrt-11", doubling())
    with pytest.raises(EngineRefused, match=words):
        session_of(api).run(inputs)
    assert api.called("IExecutionContext", "execute_async_v3") == []


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("Error Code 6: The engine plan file is generated on an incompatible device, expecting compute 8.9 got "
         "compute 9.0, please rebuild.", r"expecting compute 8\.9 got compute 9\.0.*Build it again on this machine"),
        ("The engine plan file is not compatible with this version of TensorRT, expecting library version 11.4.0 got "
         "11.3.0", r"expecting library version.*engines build --rebuild"),
        ("Error Code 1: Serialization (Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed. Version"
         " tag does not match)", r"Version tag.*--rebuild"),
        ("IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot run on this GPU, which has "
         "compute capability 9.0. Supported compute capabilities: 12.0. TensorRT-RTX does not support this compute "
         "capability, so the engine cannot be rebuilt for it. In throwUnlessComputeCapSupported at "
         "/_src/runtime/dispatch/runtime.cpp:84)",  # as an H200 said it
         r"cannot be rebuilt.*Use torch here"),
        ("Error Code 2: OutOfMemory (Requested size was 123 bytes.)", r"OutOfMemory.*--stream-weights on"),
    ],
)
def test_an_engine_that_does_not_load_is_told_in_tensorrts_words_with_what_to_do(says: str, words: str) -> None:
    with pytest.raises(EngineRefused, match=f"(?s)does not load.*{words}"):
        open_engine(fake("tensorrt-11", doubling(loads=False, says=[says])), b"plan")


def test_rtx_says_itself_what_is_wrong_with_the_bytes() -> None:
    with pytest.raises(EngineRefused, match=r"does not load \(unsupported cc\): gives up"):
        open_engine(fake("tensorrt-rtx", doubling(loads=False, says=["gives up"])), b"plan")


@pytest.mark.parametrize(
    "changes", [{"context": False}, {"loads": False, "says": ["CUDA out of memory"]},
                {"runs": False, "says": ["Error Code 2: OutOfMemory"]}],
)
def test_too_little_gpu_memory_is_that_and_not_a_broken_engine(changes: dict[str, Any]) -> None:
    """The job says out_of_memory, whenever it is that the GPU is full."""
    with pytest.raises(EngineRefused) as caught:
        session_of(fake("tensorrt-11", doubling(**changes))).run({"x": X})
    assert explain(caught.value).code == "out_of_memory"


def test_no_room_for_the_working_memory_is_told_with_the_figures() -> None:
    api = fake("tensorrt-11", doubling(context=False, working=3 * 2**30))
    with pytest.raises(EngineRefused, match=r"takes 3072 MiB, and 512 MiB of the GPU are free"):
        session_of(api, FakeGpu(api, free=2**29))


GIB = 2**30


@pytest.mark.parametrize(
    ("free_gib", "transformer", "text"),
    [(64, 28, 11), (40, 28, 7), (33, 28, 0), (24, 19, 0), (3, 0, 0)],
)
def test_the_weights_of_every_step_stay_on_the_gpu_before_those_of_one(
    free_gib: int, transformer: int, text: int
) -> None:
    """Budgets of a 14B transformer (28 GiB) and a text encoder (11 GiB), working in 3 and 1 GiB."""
    needs = {
        "transformer": Needs(weights=28 * GIB, working=3 * GIB),
        "text_encoder": Needs(weights=11 * GIB, working=GIB),
    }
    budgets = weight_budgets(needs, free_gib * GIB)
    assert HEADROOM_BYTES == GIB
    assert (budgets["transformer"], budgets["text_encoder"]) == (transformer * GIB, text * GIB)


@pytest.mark.parametrize(("free", "budget", "streams"), [(20 * GIB, 4 * GIB, False), (5 * GIB, 2 * GIB, True)])
@pytest.mark.parametrize("name", ALL)
def test_weights_that_do_not_fit_are_streamed_by_a_budget_from_the_free_memory(
    name: str, free: int, budget: int, streams: bool
) -> None:
    api = fake(name, doubling(streamable=4 * GIB, working=GIB, scratch=GIB))
    engine, said = open_engine(api, b"plan")
    found = share_memory({"transformer": engine}, {"transformer"}, FakeGpu(api, free=free))
    assert found == {"transformer": streams}
    assert engine.weight_streaming_budget_v2 == budget
    assert api.called("ICudaEngine", "create_execution_context") == []  # the budget cannot change after the first
    session = TrtSession(api, engine, said, FakeGpu(api), RunOptions(cuda_graph=True, streams_weights=streams))
    assert torch.equal(session.run({"x": X})["y"], X * 2)


def test_an_engine_that_was_not_built_to_stream_is_not_asked_about_it() -> None:
    """TensorRT answers with an error: the fake has no such property then."""
    api = fake("tensorrt-11", doubling(working=GIB))
    engine, _ = open_engine(api, b"plan")
    assert share_memory({"transformer": engine}, set(), FakeGpu(api)) == {"transformer": False}
    with pytest.raises(AttributeError):
        _ = engine.streamable_weights_size


def test_an_engine_that_streams_is_not_captured() -> None:
    api = fake("tensorrt-11", doubling())
    session = session_of(api, cuda_graph=True, streams_weights=True)
    for _ in range(3):
        session.run({"x": X})
    assert api.called("IExecutionContext", "execute_async_v3") == [(77,)] * 3


@pytest.mark.parametrize("name", ALL)
def test_refitting_gives_tensorrt_the_new_numbers_under_their_names(name: str) -> None:
    api = fake(name, doubling(weights={"l.weight": (6, "FLOAT"), "l.bias": (3, "HALF")}))
    engine, _ = open_engine(api, b"plan")
    refit(api, engine, {"l.weight": X.T, "l.bias": torch.ones(3, dtype=torch.float16)})
    assert api.refitted["l.weight"].tolist() == X.T.flatten().tolist()  # of a view, in its own order
    assert api.refitted["l.bias"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "weights", "words"),
    [
        ({"weights": {}}, {"w": X}, "weights are fixed: build it with .*--refit"),
        ({}, {"v": X}, "has no weight v"),
        ({}, {"w": torch.zeros(2)}, "w: 2 of torch.float32 for the engine's 6"),
        ({}, {"w": X.half()}, "w: 6 of torch.float16 for the engine's 6 of torch.float32"),
        ({"missing": ["b"]}, {"w": X}, "b must be given too"),
        ({"runs": False, "says": ["no way"]}, {"w": X}, "no way"),
    ],
)
def test_a_refit_that_cannot_be_leaves_the_engine_and_says_why(
    changes: dict[str, Any], weights: dict[str, torch.Tensor], words: str
) -> None:
    api = fake("tensorrt-11", doubling(**{"weights": {"w": (6, "FLOAT")}} | changes))
    engine, _ = open_engine(api, b"plan")
    api.script.says = api.script.says if "says" in changes else ()
    with pytest.raises(EngineRefused, match=words):
        refit(api, engine, weights)
    assert api.refitted == {}
