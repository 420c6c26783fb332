"""The service on engines of its vision tower: the same words, the choice told, and nothing hidden that cannot run."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.models import VLModelInfo
from engines.run.onnxrt import OnnxSession
from engines.store.manifest import EngineRefused
from engines.store.store import EngineStore
from tests.support.photographs import photograph
from tests.unit.vl_service.http.serving import serving
from tests.unit.vl_service.qwen.built_tower import FIRST_AND_REST, SLOTS, Build, Built
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.backend import QwenBackend, load_qwen
from vl_service.qwen.engines.choice import choose_tower, situation_of
from vl_service.qwen.engines.vision import EngineVision
from vl_service.qwen.engines.vision_graph import on_host, slots_needed
from vl_service.qwen.vision.features import Features
from vl_service.qwen.vision.in_torch import TorchVision
from vl_service.qwen.vision.tower import load_tower
from vl_service.settings import Settings
from vl_service.worker.program import explain, load_backend


@pytest.fixture(params=FIRST_AND_REST)
def built(request: pytest.FixtureRequest, build_tower: Build) -> Built:
    return build_tower(request.param)


@pytest.fixture
def windowed(build_tower: Build) -> Built:
    return build_tower("qwen2_5_vl")


@pytest.fixture
def own(windowed: Built, tmp_path: Path) -> Built:
    """With a copy of the store, for tests that change it."""
    return replace(windowed, data=Path(shutil.copytree(windowed.data, tmp_path / "data")))


def settings(built: Built, engine: str, **more: Any) -> Settings:
    return Settings(**{"model": str(built.folder), "device": "cpu", "greedy": True, "data_dir": built.data,
                       "engine": engine, "threads": 1, **more})


def picture(width: int, height: int) -> DecodedImage:
    return DecodedImage(rgb=photograph("chelsea").resize((width, height)), width=width, height=height)


CAT = picture(168, 112)


def say(engine: QwenBackend, seen: DecodedImage) -> str:
    task = prompt_task(kind="caption", max_new_tokens=12)
    return engine.describe(seen, [task], Deadline(at=time.monotonic() + 60)).answers[0].text


def features(seen: Features) -> list[torch.Tensor]:
    return [seen.embeddings, *seen.deepstack]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each run of an engine: its slots."""
    counted: list[int] = []
    run = OnnxSession.run

    def count(self: OnnxSession, inputs: Mapping[str, torch.Tensor], into: Any = None) -> dict[str, torch.Tensor]:
        counted.append(len(inputs["pixels"]))
        return run(self, inputs, into)

    monkeypatch.setattr(OnnxSession, "run", count)
    return counted


@torch.inference_mode()
def test_on_engines_it_sees_and_says_what_it_does_in_torch(built: Built, runs: list[int]) -> None:
    in_torch = load_qwen(settings(built, "torch"))
    on_engines = load_qwen(settings(built, "onnx"))
    expected, found = features(in_torch._vision.features_of(CAT)), features(on_engines._vision.features_of(CAT))
    assert runs == [SLOTS]
    assert len(expected) == len(found)
    for true, seen in zip(expected, found, strict=True):
        assert true.shape == seen.shape
        assert float((seen - true).norm() / true.norm()) < 1e-4
    assert say(on_engines, CAT) == say(in_torch, CAT) != ""


def test_it_says_what_was_picked_and_why(windowed: Built) -> None:
    forced = load_qwen(settings(windowed, "onnx")).info
    assert (forced.engine, forced.vision_engine) == ("transformers-cpu", "onnx-cpu")
    assert forced.vision_engine_reason.startswith(f"VL_ENGINE=onnx: {SLOTS} patches onnx fp32")
    plain = load_qwen(settings(windowed, "torch")).info
    assert (plain.vision_engine, plain.vision_engine_reason) == ("torch-cpu", "VL_ENGINE=torch")
    nothing = load_qwen(settings(windowed, "auto", data_dir=windowed.folder)).info
    assert (nothing.vision_engine, nothing.vision_engine_reason) == ("torch-cpu", "torch sees: onnx: no engines built")


@pytest.mark.parametrize("size", [(900, 600), (2000, 120), (120, 2000)])
def test_where_an_engine_is_forced_a_larger_picture_is_made_smaller_until_it_fits(
    built: Built, runs: list[int], size: tuple[int, int]
) -> None:
    """And only then; a narrow picture, whose windows are cut, takes more slots than it has patches."""
    engine = load_qwen(settings(built, "onnx"))
    seen = engine._vision.features_of(picture(*size))
    assert runs == [SLOTS]
    whole = load_qwen(settings(built, "torch"))._vision.features_of(picture(*size))
    tower = load_tower(settings(built, "torch")).module
    assert SLOTS * 0.4 < slots_needed(tower, seen.grid_thw) <= SLOTS
    assert (seen.num_tokens < whole.num_tokens) == (slots_needed(tower, whole.grid_thw) > SLOTS)


def measured(built: Built, speed_up: float) -> None:
    """As if verifying had found this."""
    manifest = built.manifest
    assert manifest.check is not None
    EngineStore(built.data / "engines").record(
        manifest, manifest.check.model_copy(update={"engine_s": 1.0, "torch_s": speed_up}))


@pytest.mark.parametrize(("speed_up", "by_engine"), [(4.0, [SLOTS, SLOTS]), (1.5, [SLOTS]), (0.9, [])])
def test_auto_runs_an_engine_for_pictures_of_which_torch_would_be_slower(
    own: Built, runs: list[int], speed_up: float, by_engine: list[int]
) -> None:
    """Of 144 slots the pictures take more than there are, 120 and 48."""
    measured(own, speed_up)
    engine = load_qwen(settings(own, "auto"))
    for size, patches in (((280, 196), 216), ((168, 140), 120), ((112, 84), 48)):
        assert int(engine._vision.features_of(picture(*size)).grid_thw.prod()) == patches
    assert runs == by_engine
    assert engine.info.vision_engine == ("onnx-cpu" if by_engine else "torch-cpu")
    words = "measured faster here and verified" if by_engine else "torch was measured as fast or faster"
    assert words in engine.info.vision_engine_reason


def test_a_forced_engine_that_cannot_run_is_an_error_at_start(windowed: Built, own: Built) -> None:
    with pytest.raises(EngineRefused, match=r"VL_ENGINE=tensorrt-rtx: tensorrt-rtx engines do not run on .* cpu"):
        load_qwen(settings(windowed, "tensorrt-rtx"))
    with pytest.raises(EngineRefused, match=r'VL_ENGINE=onnx: .*nothing is built.*--model "\$VL_MODEL" --target onnx'):
        load_qwen(settings(windowed, "onnx", data_dir=windowed.folder))
    damage(own)
    with pytest.raises(EngineRefused, match=r"graph\.onnx\.data in .* is corrupt; build it again"):
        load_qwen(settings(own, "onnx"))
    with pytest.raises(EngineRefused, match="VL_ENGINE=onnx: there are no engines of the embedded checkpoint"):
        load_backend(Settings(model="embedded", engine="onnx"))


def damage(built: Built) -> None:
    path = built.data / "engines" / built.manifest.recipe.key / "graph.onnx.data"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def test_where_none_is_forced_a_damaged_engine_leaves_torch_and_the_reason(own: Built, runs: list[int]) -> None:
    measured(own, 4.0)
    damage(own)
    engine = load_qwen(settings(own, "auto"))
    assert engine.info.vision_engine == "onnx-cpu"
    assert say(engine, CAT) == say(load_qwen(settings(own, "torch")), CAT)
    assert runs == []
    assert engine.info.vision_engine == "torch-cpu"
    assert f"; {SLOTS} patches refused: vision_{SLOTS}: graph.onnx.data in" in engine.info.vision_engine_reason


async def test_the_pages_say_what_was_picked_and_why(windowed: Built) -> None:
    async with serving(**settings(windowed, "onnx").model_dump()) as client:
        details = (await client.get("/readyz")).json()["details"]
        [told] = (await client.get("/v1/models")).json()["data"]
        info = VLModelInfo.model_validate(told)
        assert details["vision_engine"] == info.vision_engine == "onnx-cpu"
        assert details["vision_engine_reason"] == info.vision_engine_reason
        assert info.vision_engine_reason.startswith("VL_ENGINE=onnx: ")


def test_without_the_engine_that_is_forced_nothing_is_loaded(windowed: Built) -> None:
    with pytest.raises(EngineRefused, match="VL_ENGINE=onnx: no complete verified set of onnx engines"):
        load_backend(settings(windowed, "onnx", data_dir=windowed.folder))


@dataclass
class BrokenSession:
    """As an engine on a GPU that another process filled."""

    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ("features",)

    def run(self, inputs: Mapping[str, torch.Tensor], into: Any = None) -> dict[str, torch.Tensor]:
        raise EngineRefused("the GPU is full")

    def zeros(self, name: str) -> torch.Tensor:
        raise NotImplementedError


def test_a_forced_engine_that_stops_running_fails_the_call_with_the_reason(windowed: Built) -> None:
    tower = load_tower(settings(windowed, "torch"))
    choice = choose_tower("onnx", windowed.store, situation_of(tower.revision, "cpu"))
    forced = EngineVision(TorchVision(tower), choice, lambda _: BrokenSession())
    with pytest.raises(EngineRefused, match="the GPU is full") as refused:
        forced.features_of(CAT)
    told = explain(refused.value)
    assert (told.status, told.code) == (503, "engine_refused")
    assert "the GPU is full. Build it again, or set VL_ENGINE=auto" in told.detail


def test_laying_out_needs_nothing_of_the_tower_but_its_tables(windowed: Built) -> None:
    """Which stay on the CPU when the tower is on a GPU."""
    tower = load_tower(settings(windowed, "torch")).module
    kept = on_host(tower)
    assert not hasattr(kept, "blocks")
    assert kept.rotary_pos_emb is not tower.rotary_pos_emb
