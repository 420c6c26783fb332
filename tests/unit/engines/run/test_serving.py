"""The video service on engines: the same video, the choice told, and no silent fallback where one was forced."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from contracts.refusal import ParameterRefused
from contracts.videos import VideoRequest
from engines.build.build import Order, build
from engines.store.store import EngineStore
from tests.unit.engines.conftest import SHAPE, open_shelf
from video_service.engines.clips import ClipGraphs
from video_service.model import ModelSource, find_model, load_model, open_model
from video_service.render.generate import generate
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable


@pytest.fixture
def request_(picture_png: bytes) -> VideoRequest:
    return VideoRequest(
        prompt="slow zoom in", image=picture_png, width=SHAPE.width, height=SHAPE.height,
        num_frames=SHAPE.num_frames, fps=16, seed=7, steps=3,
    )


@pytest.fixture(scope="session")
def picture_png() -> bytes:
    import io

    from PIL import Image

    ramp = np.linspace(0, 255, 64)
    pixels = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90.0)], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def own_store(built_store: EngineStore, tiny_settings: VideoSettings, tmp_path: Path) -> VideoSettings:
    """Settings over a copy of the built store, for tests that spoil it."""
    shutil.copytree(built_store.root, tmp_path / "data" / "engines")
    return tiny_settings.model_copy(update={"data_dir": tmp_path / "data"})


def wishing(settings: VideoSettings, engine: str) -> VideoSettings:
    return settings.model_copy(update={"engine": engine})


def frames_of(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def no_report(stage: str, done: int, total: int) -> None:
    pass


def test_a_whole_video_on_onnx_graphs_equals_torchs(
    built_store: EngineStore, tiny_settings: VideoSettings, request_: VideoRequest, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The files' frames agree within 40 dB, and the result names what computed them."""
    torch_model = load_model(find_model(tiny_settings), tiny_settings)
    true = generate(torch_model, request_, tmp_path / "torch.mp4", no_report)
    monkeypatch.setattr("video_service.weights.parts.read_part", None)  # a forced engine reads none of torch's weights
    model = open_shelf(wishing(tiny_settings, "onnx")).model_for(request_)
    found = generate(model, request_, tmp_path / "onnx.mp4", no_report)
    assert (true.engine, found.engine) == ("torch-cpu", "onnx-cpu")
    assert true.engine_reason == "VIDEO_ENGINE=torch"
    assert found.engine_reason.startswith("forced: 96x64x9 onnx fp32 (")
    difference = frames_of(tmp_path / "torch.mp4").astype(float) - frames_of(tmp_path / "onnx.mp4")
    assert 10 * np.log10(255**2 / max(np.mean(difference**2), 1e-9)) > 40


def test_a_forced_engine_refuses_shapes_that_it_has_not(
    built_store: EngineStore, tiny_settings: VideoSettings, request_: VideoRequest
) -> None:
    shelf = open_shelf(wishing(tiny_settings, "onnx"))
    other = request_.model_copy(update={"num_frames": 13})
    with pytest.raises(ParameterRefused, match=r"no engine for 96x64x13; it has 96x64x9"):
        shelf.model_for(other)


def test_a_forced_engine_that_is_not_built_is_an_error_at_start(
    tiny_settings: VideoSettings, tmp_path: Path
) -> None:
    settings = wishing(tiny_settings, "onnx").model_copy(update={"data_dir": tmp_path})
    with pytest.raises(ModelUnavailable, match=r"VIDEO_ENGINE=onnx: no complete verified set .* engines build"):
        find_model(settings)


def test_a_forced_engine_without_a_gpu_or_library_is_an_error_at_start(tiny_settings: VideoSettings) -> None:
    with pytest.raises(ModelUnavailable, match=r"VIDEO_ENGINE=tensorrt-rtx: .*(not installed|device cpu)"):
        find_model(wishing(tiny_settings, "tensorrt-rtx"))
    with pytest.raises(ModelUnavailable, match=r"VIDEO_ENGINE=tensorrt: "):
        find_model(wishing(tiny_settings, "tensorrt"))


def test_a_corrupt_forced_engine_is_an_error_at_start(own_store: VideoSettings) -> None:
    spoil(own_store, "transformer")
    settings = wishing(own_store, "onnx")
    with pytest.raises(ModelUnavailable, match=r"transformer: graph\.onnx\.data .* is corrupt"):
        open_model(settings)


def test_auto_renders_with_torch_where_an_engine_is_corrupt(own_store: VideoSettings, request_: VideoRequest) -> None:
    measure(own_store, engine_s=0.001, torch_s=1.0)
    spoil(own_store, "transformer")
    shelf = open_shelf(wishing(own_store, "auto"))
    info = shelf.model_for(request_).info
    assert info.engine == "torch-cpu"
    assert "transformer: graph.onnx.data" in info.engine_reason


@pytest.mark.parametrize(("engine_s", "label"), [(0.5, "onnx-cpu"), (0.99, "torch-cpu"), (2.0, "torch-cpu")])
def test_auto_takes_what_was_measured_faster_and_says_so(
    own_store: VideoSettings, request_: VideoRequest, engine_s: float, label: str
) -> None:
    measure(own_store, engine_s=engine_s, torch_s=1.0)
    info = find_model(wishing(own_store, "auto")).info
    assert info.engine == label
    assert "96x64x9" in info.engine_reason
    assert f"{1 / engine_s:.2f}x torch" in info.engine_reason
    assert open_shelf(wishing(own_store, "auto")).model_for(request_).info.engine == label


def test_auto_keeps_torch_for_shapes_without_engines(own_store: VideoSettings, request_: VideoRequest) -> None:
    measure(own_store, engine_s=0.1, torch_s=1.0)
    other = request_.model_copy(update={"num_frames": 13})
    info = open_shelf(wishing(own_store, "auto")).model_for(other).info
    assert info.engine == "torch-cpu"
    assert info.engine_reason == "VIDEO_ENGINE=auto has no engine for 96x64x13; it has 96x64x9"


def test_engines_of_other_weights_are_not_used_and_the_reason_is_told(own_store: VideoSettings) -> None:
    weights = Path(own_store.model) / "vae" / "diffusion_pytorch_model.safetensors"
    copy = own_store.data_dir / "wan"
    shutil.copytree(own_store.model, copy)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    (copy / "vae" / weights.name).write_bytes(data)
    info = find_model(wishing(own_store, "auto").model_copy(update={"model": str(copy)})).info
    assert info.engine == "torch-cpu"
    assert "built from other weights" in info.engine_reason


def test_an_interrupted_build_goes_on_where_it_stopped(
    own_store: VideoSettings, tiny_source: ModelSource, order: Order
) -> None:
    """Whole engines are kept, a damaged one is built again."""
    store = EngineStore(own_store.engine_store_dir)
    spoil(own_store, "text_encoder")
    said: list[str] = []
    manifests = build(ClipGraphs(tiny_source), store, order, said.append)
    assert [line.split()[1] for line in said if "built in" in line] == ["text_encoder"]
    for manifest in manifests:
        store.check_files(manifest)


def spoil(settings: VideoSettings, graph: str) -> None:
    store = EngineStore(settings.engine_store_dir)
    recipe = next(found.recipe for found in store.manifests()[0] if found.recipe.graph == graph)
    path = store.folder(recipe) / "graph.onnx.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def measure(settings: VideoSettings, *, engine_s: float, torch_s: float) -> None:
    """Put these times in place of the measured ones."""
    store = EngineStore(settings.engine_store_dir)
    for manifest in store.manifests()[0]:
        assert manifest.check is not None
        times = {"engine_s": engine_s, "torch_s": torch_s}
        store.record(manifest, manifest.check.model_copy(update=times))
