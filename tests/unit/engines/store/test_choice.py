"""Which engine renders what, from the store alone: built, verified, measured fastest on this GPU; and why."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.models import FrameRange, VideoModelInfo
from contracts.refusal import ParameterRefused
from contracts.resolve import resolve_request
from contracts.videos import VideoRequest
from engines.store import choice as module
from engines.store.choice import Wish
from engines.store.gpus import check_gpu
from engines.store.manifest import Check, EngineRefused, Manifest, Precision, Target
from engines.store.store import EngineStore
from tests.checkpoints.tiny_wan_card import TINY_CARD
from tests.support.idle_video_worker import command
from video_service.engines.choice import EngineChoice, Situation, choose_engine
from video_service.engines.recipes import clip_recipe
from video_service.engines.shape import ClipShape
from video_service.families.wan.files import WAN_GRAPHS
from video_service.http.app import create_app
from video_service.model import find_model
from video_service.queue.files import RenderFiles
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable

H200, RTX4090 = ("SM90", "NVIDIA H200"), ("SM89", "NVIDIA GeForce RTX 4090")


def shape(clip: str = "832x480x81") -> ClipShape:
    return ClipShape.parse_clip(clip, 16, FrameRange(minimum=1, maximum=161, default=81, step=4))


def situation(machine: tuple[str, str] = RTX4090, **changes: Any) -> Situation:
    capability, name = machine
    fields = {
        "revision": "a1", "text_tokens": 16, "graphs": WAN_GRAPHS, "device": "cuda", "capability": capability,
        "gpu": name, "runs": lambda shape: {"transformer": 4, "vae_decoder_later": (shape.num_frames - 1) // 4},
    }
    return Situation(**fields | changes)


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


@pytest.fixture(autouse=True)
def every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "library_version", lambda target: "1.0")


def put(
    store: EngineStore, target: Target, *, clip: str = "832x480x81", seconds: float = 0.5, torch_s: float = 1.0,
    gpu: tuple[str | None, str | None] = RTX4090, precision: Precision = "bf16", revision: str = "a1",
    verified: bool = True, graphs: tuple[str, ...] = WAN_GRAPHS,
) -> None:
    """Engines of one clip, each with these times."""
    for graph in graphs:
        recipe = clip_recipe(
            graph, shape(clip), revision=revision, precision=precision, target=target, capability=gpu[0]
        )
        manifest = Manifest(model="m", recipe=recipe, files={}, nodes=1, weights=1, build_s=0, peak_memory_bytes=0)
        with store.work_folder() as work:
            (work / "built").mkdir()
            manifest = store.put(work / "built", manifest)
        if verified:
            store.record(manifest, Check(
                relative_l2=0, max_error=0, bar_l2=1, bar_max=1, engine_s=seconds, torch_s=torch_s, device="cuda",
                gpu=gpu[1],
            ))


def pick(store: EngineStore, wish: Wish = "auto", at: Situation | None = None) -> EngineChoice:
    return choose_engine(wish, store.root, at or situation())


@pytest.mark.parametrize(("rtx_s", "trt_s", "target"), [(0.4, 0.5, "tensorrt-rtx"), (0.5, 0.4, "tensorrt")])
def test_auto_takes_whichever_was_measured_fastest(
    store: EngineStore, rtx_s: float, trt_s: float, target: str
) -> None:
    put(store, "tensorrt-rtx", seconds=rtx_s)
    put(store, "tensorrt", seconds=trt_s)
    found = pick(store)
    assert (found.target, found.label("cuda")) == (target, f"{target}-cuda")
    assert f"832x480x81 {target} bf16 (2.50x torch)" in found.reason


def test_auto_picks_for_each_shape_by_itself(store: EngineStore) -> None:
    put(store, "tensorrt-rtx", clip="832x480x81", seconds=0.4)
    put(store, "tensorrt", clip="832x480x81", seconds=0.5)
    put(store, "tensorrt", clip="480x832x81", seconds=0.5)
    put(store, "tensorrt", clip="640x480x49", seconds=2.0)
    found = pick(store)
    assert {str(one.shape): one.target for one in found.sets} == {
        "832x480x81": "tensorrt-rtx", "480x832x81": "tensorrt"
    }
    assert not found.forced


def test_a_better_precision_of_one_target_counts(store: EngineStore) -> None:
    put(store, "tensorrt", precision="bf16", seconds=0.5)
    put(store, "tensorrt", precision="fp16", seconds=0.4)
    assert [one.precision for one in pick(store).sets] == ["fp16"]
    assert [one.precision for one in pick(store, "tensorrt").sets] == ["fp16"]


@pytest.mark.parametrize(
    ("built", "words"),
    [
        ({"seconds": 1.0}, r"torch was measured as fast or faster \(832x480x81 tensorrt-rtx bf16 \(1.00x torch\)\)"),
        ({"gpu": ("SM89", "NVIDIA L4")}, r"measured on NVIDIA L4 only: run `stillmotion engines verify`"),
        ({"verified": False}, r"built but never verified"),
        ({"revision": "b2"}, r"built from other weights \(b2, not a1\)"),
        ({"graphs": ("transformer",)}, r"text_encoder has no tensorrt-rtx engine"),
        ({"gpu": ("SM120", "NVIDIA RTX 5090")}, r"built for SM120 \(RTX 50\), and this GPU is SM89 \(RTX 40"),
    ],
)
def test_auto_keeps_torch_and_says_why(store: EngineStore, built: dict[str, Any], words: str) -> None:
    put(store, "tensorrt-rtx", **built)
    found = pick(store)
    assert (found.target, found.sets, found.label("cuda")) == (None, (), "torch-cuda")
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found.reason)


@pytest.mark.parametrize(("seconds", "label"), [(0.5, "onnx-cpu"), (0.98, "torch-cpu"), (2.0, "torch-cpu")])
def test_on_a_cpu_onnx_runtime_renders_where_it_was_measured_faster(
    store: EngineStore, seconds: float, label: str
) -> None:
    put(store, "onnx", seconds=seconds, gpu=(None, None), precision="fp32")
    found = pick(store, at=situation(device="cpu", capability=None, gpu=None))
    assert found.label("cpu") == label
    assert f"832x480x81 onnx fp32 ({1 / seconds:.2f}x torch)" in found.reason


def test_a_forced_engine_need_not_be_faster_but_must_run(store: EngineStore) -> None:
    put(store, "tensorrt-rtx", seconds=3.0, gpu=("SM89", "NVIDIA L4"))
    found = pick(store, "tensorrt-rtx")
    assert found.forced
    assert found.target == "tensorrt-rtx"
    with pytest.raises(EngineRefused, match=r"no complete verified set of tensorrt engines \(nothing is built"):
        pick(store, "tensorrt")


def test_an_h200_refuses_rtx_engines_with_what_to_build_instead(store: EngineStore) -> None:
    put(store, "tensorrt-rtx")
    with pytest.raises(EngineRefused) as caught:
        pick(store, "tensorrt-rtx", situation(H200))
    assert str(caught.value) == (
        "no complete verified set of tensorrt-rtx engines (832x480x81: transformer was built for SM89 (RTX 40, L4, "
        "L40S), and this GPU is SM90 (H100, H200). TensorRT-RTX does not run on this GPU: run `stillmotion engines "
        "build --target tensorrt` on this machine.). Run `stillmotion engines build --target tensorrt-rtx`."
    )


@pytest.mark.parametrize(
    ("target", "built", "here", "words"),
    [
        ("tensorrt-rtx", "SM89", "SM120", r"SM120 \(RTX 50\)\. Run `.* --target tensorrt-rtx --sm 120`"),
        ("tensorrt-rtx", "SM89", "SM90", r"does not run on this GPU: run `.* --target tensorrt`"),
        ("tensorrt", "SM80", "SM90", r"SM80 \(A100\), and this GPU is SM90 .* --target tensorrt` on this machine"),
        ("tensorrt", "SM90", None, r"there is no GPU here\. Run the service where that GPU is, or leave the choice"),
    ],
)
def test_an_engine_for_another_gpu_is_refused_before_it_is_read(
    target: Target, built: str, here: str | None, words: str
) -> None:
    recipe = clip_recipe(
        "transformer", shape(), revision="a1", precision="bf16", target=target, capability=built
    )
    check_gpu(recipe, built)
    with pytest.raises(EngineRefused, match=words):
        check_gpu(recipe, here)


@pytest.fixture
def forced(tiny_folder: Path, tmp_path: Path) -> VideoSettings:
    """A service that is forced onto ONNX engines of two clips."""
    settings = VideoSettings(
        model=str(tiny_folder), device="cpu", dtype="float32", data_dir=tmp_path / "data", engine="torch"
    )
    source = find_model(settings)
    for clip in ("96x64x13", "64x96x9"):
        put(
            EngineStore(settings.engine_store_dir.resolve()), "onnx", clip=clip, revision=source.info.revision,
            precision="fp32", gpu=(None, None),
        )
    return settings.model_copy(update={"engine": "onnx"})


def test_a_forced_engine_offers_only_what_was_built(forced: VideoSettings) -> None:
    info: VideoModelInfo = find_model(forced).info
    assert set(info.clips) == {"96x64x13", "64x96x9"}
    assert set(info.sizes) == {"96x64", "64x96"}
    assert (info.num_frames.minimum, info.num_frames.maximum) == (9, 13)
    # What a caller gets who asks for nothing is among them; the model's own default frames come first.
    assert f"{info.sizes[0]}x{info.num_frames.default}" == "64x96x9"
    free = find_model(forced.model_copy(update={"engine": "torch"})).info
    assert (free.clips, free.sizes) == ([], TINY_CARD["sizes"])


@pytest.mark.parametrize(
    ("change", "field"),
    [({"num_frames": 9}, "num_frames"), ({"width": 64, "height": 64}, "size"), ({"width": 80}, "size")],
)
def test_a_shape_without_a_forced_engine_is_refused_with_those_there_are(
    forced: VideoSettings, change: dict[str, int], field: str
) -> None:
    info = find_model(forced).info
    request = VideoRequest(prompt="zoom", width=96, height=64, num_frames=13, fps=16, seed=1)
    resolve_request(request, info)
    with pytest.raises(ParameterRefused, match=r"no engine for .* here; it renders .*96x64x13") as at:
        resolve_request(request.model_copy(update=change), info)
    assert at.value.field == field


@pytest.fixture
async def http(forced: VideoSettings, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    worker = command(find_model(forced).info, tmp_path)
    app = create_app(forced, RenderFiles(forced.data_dir / "video"), worker_command=worker)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://video") as client,
    ):
        for _ in range(500):
            if (await client.get("/v1/models")).status_code != 503:
                break
            await asyncio.sleep(0.02)
        yield client


async def test_the_door_refuses_it_and_the_pages_say_what_was_picked_and_why(http: httpx.AsyncClient) -> None:
    body = {"prompt": "zoom", "width": 96, "height": 64, "num_frames": 9, "fps": 16, "seed": 1}
    refused = await http.put("/v1/videos/a", json=body)
    assert refused.status_code == 422, refused.text
    assert "it renders" in refused.json()["detail"]
    assert (await http.get("/v1/videos/a")).status_code == 404
    assert (await http.put("/v1/videos/a", json=body | {"num_frames": 13})).status_code == 202
    (info,) = (await http.get("/v1/models")).json()["data"]
    details = (await http.get("/readyz")).json()["details"]
    assert info["engine"] == details["engine"] == "onnx-cpu"
    assert info["engine_reason"] == details["engine_reason"]
    assert info["engine_reason"].startswith("VIDEO_ENGINE=onnx: ")


def test_a_forced_engine_without_any_is_an_error_at_start(tiny_folder: Path, tmp_path: Path) -> None:
    settings = VideoSettings(model=str(tiny_folder), device="cpu", data_dir=tmp_path, engine="onnx")
    with pytest.raises(ModelUnavailable, match=r"VIDEO_ENGINE=onnx: no complete verified set"):
        find_model(settings)
