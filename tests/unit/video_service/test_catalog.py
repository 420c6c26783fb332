"""What a deployment can render, and what it refuses, known from JSON files alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.models import VideoModelInfo
from contracts.refusal import ParameterRefused
from contracts.resolve import resolve_request
from contracts.videos import VideoRequest
from tests.checkpoints.tiny_wan_card import TINY_CARD
from video_service.model import find_model
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable

CONFIGS: dict[str, dict[str, Any]] = {
    "model_index.json": {"_class_name": "WanPipeline"},
    "transformer/config.json": {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "in_channels": 16,
                                "out_channels": 16, "image_dim": None},
    "vae/config.json": {"_class_name": "AutoencoderKLWan", "z_dim": 16},
    "text_encoder/config.json": {}, "scheduler/scheduler_config.json": {"flow_shift": 5.0},
}


def make_folder(folder: Path, changes: dict[str, dict[str, Any]] | None = None) -> Path:
    """A checkpoint folder of JSON files, with weights that nobody reads."""
    for name, config in CONFIGS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config | (changes or {}).get(name, {})))
        if path.parent != folder:
            (path.parent / "model.safetensors").write_bytes(b"weights")
    if changes and "stillmotion.json" in changes:
        (folder / "stillmotion.json").write_text(json.dumps(changes["stillmotion.json"]))
    return folder


def settings(folder: Path) -> VideoSettings:
    return VideoSettings(model=str(folder), device="cpu", dtype="float32")


@pytest.fixture
def info(tmp_path: Path) -> VideoModelInfo:
    card = TINY_CARD | {"steps": {"minimum": 1, "maximum": 50, "default": 10}}
    return find_model(settings(make_folder(tmp_path / "tiny", {"stillmotion.json": card}))).info


def request(**fields: Any) -> VideoRequest:
    return VideoRequest(**{"prompt": "zoom", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1} | fields)


def test_an_ordinary_wan_checkpoint_gets_wans_own_defaults(tmp_path: Path) -> None:
    source = find_model(settings(make_folder(tmp_path / "Wan2.1-T2V")))
    assert (source.family.name, source.info.id, source.info.text_tokens) == ("wan2.1", "Wan2.1-T2V", 512)
    assert (source.info.tasks, source.info.size_multiple, source.info.samplers[0]) == (["t2v"], 16, "unipc")
    assert (source.info.num_frames.default, source.info.sizes[0]) == (81, "832x480")


def test_36_channels_mean_picture_to_video(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "i2v", {"transformer/config.json": {"in_channels": 36}})
    assert find_model(settings(folder)).info.tasks == ["i2v"]


def test_the_size_multiple_is_the_vae_scale_times_the_patch(tmp_path: Path) -> None:
    changes = {"vae/config.json": {"scale_factor_spatial": 4}, "transformer/config.json": {"patch_size": [1, 8, 8]}}
    changes["stillmotion.json"] = {"sizes": ["64x96"]}
    assert find_model(settings(make_folder(tmp_path / "v", changes))).info.size_multiple == 32


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "lacks transformer_2/config"),
     ("model_index.json", {"_class_name": "CogVideoXPipeline"}, "is a CogVideoXPipeline"),
     ("transformer/config.json", {"_class_name": "LTXVideoTransformer3DModel"}, "checkpoints of turbowan2.1, "),
     ("transformer/config.json", {"in_channels": 33}, "in_channels"),
     ("transformer/config.json", {"patch_size": [1, 2, 4]}, "squares"),
     ("stillmotion.json", {"sizes": ["100x100"]}, "not a multiple"),
     ("stillmotion.json", {"sizes": ["big"]}, "not valid"),
     ("stillmotion.json", {"stepz": 4}, "not valid")],
)
def test_a_checkpoint_that_cannot_be_rendered_is_refused_by_name(
    tmp_path: Path, file: str, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelUnavailable, match=reason):
        find_model(settings(make_folder(tmp_path / "wan", {file: change})))


def test_a_folder_that_is_not_whole_names_what_it_lacks(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "wan")
    (folder / "vae" / "config.json").unlink()
    (folder / "transformer" / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"lacks vae/config.json, transformer/\*.safetensors"):
        find_model(settings(folder))


@pytest.mark.parametrize("model", ["/nowhere/at/all", "embedded"])
def test_a_missing_folder_says_what_to_set(tmp_path: Path, model: str) -> None:
    with pytest.raises(ModelUnavailable, match="VIDEO_MODEL"):
        find_model(VideoSettings(model=model, models_dir=tmp_path, device="cpu"))


def test_a_hub_id_without_a_hub_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match="neither a folder here nor readable from the model hub"):
        find_model(VideoSettings(model="stillmotion/no-such-model", models_dir=tmp_path, device="cpu"))


def test_the_revision_names_the_content(tmp_path: Path) -> None:
    """Equal folders have equal revisions wherever they lie; one changed byte of weights changes it."""
    first, second = (find_model(settings(make_folder(tmp_path / name / "wan"))) for name in "ab")
    assert first.info.revision == second.info.revision
    (tmp_path / "b" / "wan" / "vae" / "model.safetensors").write_bytes(b"weightz")
    assert find_model(settings(tmp_path / "b" / "wan")).info.revision != first.info.revision


def test_a_good_request_passes(info: VideoModelInfo) -> None:
    resolve_request(request(model="tiny-wan", image="aGk=", steps=50, guidance_scale=2.0), info)


@pytest.mark.parametrize(
    ("fields", "field", "advice"),
    [({"model": "other"}, "model", "use one of: tiny-wan"),
     ({"width": 72}, "width", "nearest size is 64x64"),
     ({"height": 4090}, "height", "multiples of 16"),
     ({"width": 160, "height": 160}, "width", "at most 16384 pixels"),
     ({"num_frames": 37}, "num_frames", "4k.1 frames from 1 to 33.* Nearest to 37: 33"),
     ({"num_frames": 8}, "num_frames", "5 or 9"),
     ({"steps": 51}, "steps", "1 to 50"),
     ({"guidance_scale": 11.0}, "guidance_scale", "from 1 to 10"),
     ({"sampler": "ode", "steps": 5}, "steps", "1 to 4"),
     ({"sampler": "sde", "guidance_scale": 2.0}, "guidance_scale", "no guidance")],
)
def test_a_refusal_names_the_field_and_what_to_use(
    info: VideoModelInfo, fields: dict[str, Any], field: str, advice: str
) -> None:
    with pytest.raises(ParameterRefused, match=advice) as refusal:
        resolve_request(request(**fields), info)
    assert refusal.value.field == field


@pytest.mark.parametrize(("tasks", "image"), [(["i2v"], None), (["t2v"], "aGk=")])
def test_a_task_the_model_lacks_is_refused(info: VideoModelInfo, tasks: list[str], image: str | None) -> None:
    with pytest.raises(ParameterRefused) as refusal:
        resolve_request(request(image=image), info.model_copy(update={"tasks": tasks}))
    assert refusal.value.field == "image"


def test_a_sampler_the_model_lacks_is_refused(info: VideoModelInfo) -> None:
    with pytest.raises(ParameterRefused, match="takes euler"):
        resolve_request(request(sampler="unipc"), info.model_copy(update={"samplers": ["euler"]}))


def test_rcm_defaults_to_its_four_steps_without_guidance(info: VideoModelInfo) -> None:
    """What the model takes by default may be beyond rCM; leaving it out must still be a good request."""
    guided = info.model_copy(update={"guidance_scale": info.guidance_scale.model_copy(update={"default": 5.0})})
    resolve_request(request(sampler="sde"), guided)
    sampling = resolve_request(request(sampler="sde"), guided).sampling
    assert (sampling.steps, sampling.guidance_scale) == (4, 1.0)
    default = resolve_request(request(), guided).sampling
    assert (default.sampler, default.steps, default.guidance_scale) == ("euler", 10, 5.0)
