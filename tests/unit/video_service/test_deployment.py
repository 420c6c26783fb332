"""Laws of several models in one process; over HTTP they are in tests/wire/one_service/test_several_models.py."""

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.models import VideoModelList
from contracts.refusal import ParameterRefused
from contracts.videos import RenderResult, VideoRequest
from tests.checkpoints.tiny_lora import write_lora
from tests.unit.video_service.conftest import network
from video_service import model
from video_service.deployment import Deployment, open_models
from video_service.render.generate import Deployed, generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable


@pytest.fixture
def folders(tiny_folder: Path, wan_t2v_folder: Path) -> tuple[str, str]:
    return str(tiny_folder), str(wan_t2v_folder)


@pytest.fixture
def budget(folders: tuple[str, str]) -> int:
    """Room for either model and not for both."""
    return max(found.memory_bytes or 0 for found in Deployment(settings_of(*folders)).models().data)


def settings_of(*folders: str, **more: Any) -> VideoSettings:
    return VideoSettings.model_validate({"models": folders, "device": "cpu", "dtype": "float32"} | more)


def render(deployment: Deployment, request: VideoRequest, folder: Path, **changes: Any) -> RenderResult:
    asked = VideoRequest.model_validate(request.model_dump() | {"num_frames": 1, "steps": 1} | changes)
    return deployment.render(asked, folder / "video.mp4", silent, lambda _: None)


def states(listed: VideoModelList) -> dict[str, str]:
    return {found.id: found.state for found in [*listed.data, *listed.absent]}


def test_what_leaves_memory_is_freed(
    folders: tuple[str, str], budget: int, request_64: VideoRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []

    def load(*given: Any) -> Deployed:
        deployed = real(*given)
        transformer = network(deployed)
        transformer.itself = [transformer]  # a cycle, as a captured graph's closure makes one
        loaded.append(weakref.ref(transformer))
        return deployed

    real = model.load_model
    monkeypatch.setattr(model, "load_model", load)
    deployment = open_models(settings_of(*folders, memory_budget=budget))
    render(deployment, request_64, tmp_path, model="wan-t2v")
    assert [ref() is None for ref in loaded] == [True, False]


def test_a_render_that_runs_out_of_memory_begins_again_without_the_models_that_lie_idle(
    folders: tuple[str, str], request_64: VideoRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [torch.OutOfMemoryError("CUDA out of memory")]

    def render_or_fail(*given: Any) -> RenderResult:
        if failures and given[0].info.id == "wan-t2v":
            raise failures.pop()
        return generate(*given)

    monkeypatch.setattr(model, "generate", render_or_fail)
    deployment = open_models(settings_of(*folders))
    assert render(deployment, request_64, tmp_path, model="wan-t2v").model == "wan-t2v"
    assert states(deployment.models()) == {"tiny-wan": "loadable", "wan-t2v": "loaded"}
    failures += [torch.OutOfMemoryError("CUDA out of memory")]
    with pytest.raises(torch.OutOfMemoryError):  # nothing is left to go
        render(deployment, request_64, tmp_path, model="wan-t2v")


def test_what_cannot_be_deployed_is_absent_with_what_to_do(folders: tuple[str, str], tmp_path: Path) -> None:
    twin = shutil.copytree(folders[0], tmp_path / "twin")
    found = Deployment(settings_of(*folders, str(twin), str(tmp_path / "nowhere")))
    assert states(found.models()) == {
        "tiny-wan": "loadable", "wan-t2v": "loadable", "twin": "absent", "nowhere": "absent"}
    reasons = [absent.reason for absent in found.models().absent]
    assert "another `id`" in reasons[0]
    assert "no checkpoint folder" in reasons[1]
    small = Deployment(settings_of(*folders, memory_budget=1000)).models()
    assert small.data == []
    assert all("VIDEO_MEMORY_BUDGET" in absent.reason for absent in small.absent)
    merged = Deployment(settings_of(*folders, lora=folders[0])).models()
    assert all("VIDEO_LORA" in absent.reason for absent in merged.absent)


def test_with_nothing_to_render_with_it_does_not_open_and_says_why_for_each(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"checkpoint folder at .*one.* checkpoint folder at .*two"):
        open_models(settings_of(str(tmp_path / "one"), str(tmp_path / "two")))


def test_a_model_that_may_come_is_looked_for_again_and_one_that_may_not_is_not(
    folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    away, asked = [folders[1]], []

    def find(settings: VideoSettings) -> model.ModelSource:
        asked.append(settings.model)
        if settings.model in away:
            raise ModelNotYetAvailable("The hub is away.")
        return real(settings)

    real = model.find_model
    monkeypatch.setattr(model, "find_model", find)
    deployment = open_models(settings_of(*folders, str(tmp_path / "nowhere")))
    assert states(deployment.look_again()) == {"tiny-wan": "loaded", "wan-t2v": "absent", "nowhere": "absent"}
    away.clear()
    assert states(deployment.look_again()) == {"tiny-wan": "loaded", "wan-t2v": "loadable", "nowhere": "absent"}
    assert [asked.count(name) for name in (*folders, str(tmp_path / "nowhere"))] == [1, 3, 1]


def test_a_model_in_which_a_lora_is_shares_what_that_leaves_alone_and_the_last_few_are_kept(
    tiny_folder: Path, tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    loras = tmp_path / "loras"
    loras.mkdir()
    write_lora(loras / "style.safetensors", network(tiny_model), "kohya")
    deployment = open_models(settings_of(str(tiny_folder), loras_dir=loras))
    before = deployment._residency.num_bytes
    for scale in range(1, 8):
        render(deployment, request_64, tmp_path, loras=[{"id": "style", "scale": scale / 2}])
    assert len(deployment._residency.keys) == 1 + 4
    blocks = sum(layer.weight.nbytes for name, layer in network(tiny_model).named_modules()
                 if name.startswith("blocks.") and isinstance(layer, torch.nn.Linear))
    assert deployment._residency.num_bytes == before + 4 * blocks
    with pytest.raises(ParameterRefused, match="no LoRA 'gone'"):
        render(deployment, request_64, tmp_path, loras=[{"id": "gone"}])
