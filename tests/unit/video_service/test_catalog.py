"""What a deployment can render, and what it refuses, known from JSON files alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.models import VideoModelInfo
from contracts.videos import VideoRequest
from tests.tiny_wan import TINY_CARD
from video_service.catalog import ModelUnavailable, RequestRefused, check_request, find_model, resolve_sampling
from video_service.settings import VideoSettings

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


def test_the_catalog_needs_no_model_library(tiny_folder: Path) -> None:
    """The HTTP process answers /v1/models without torch, transformers or diffusers in memory."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom video_service.catalog import find_model\n"
        "from video_service.settings import VideoSettings\nimport video_service.media.image\n"
        f"print(find_model(VideoSettings(model={str(tiny_folder)!r})).info.id)\n"
        "print(sorted({'torch', 'transformers', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["tiny-wan", "[]"]


def test_an_ordinary_wan_checkpoint_gets_wans_own_defaults(tmp_path: Path) -> None:
    source = find_model(settings(make_folder(tmp_path / "Wan2.1-T2V")))
    assert (source.info.id, source.flow_shift, source.max_sequence_length) == ("Wan2.1-T2V", 5.0, 512)
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
    [("model_index.json", {"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "two experts"),
     ("model_index.json", {"expand_timesteps": True}, "TI2V-5B"),
     ("vae/config.json", {"is_residual": True}, "TI2V-5B"),
     ("transformer/config.json", {"image_dim": 1280}, "CLIP image encoder"),
     ("transformer/config.json", {"_class_name": "LTXVideoTransformer3DModel"}, "renders with Wan"),
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
    assert first.revision == second.revision
    (tmp_path / "b" / "wan" / "vae" / "model.safetensors").write_bytes(b"weightz")
    assert find_model(settings(tmp_path / "b" / "wan")).revision != first.revision


def test_a_good_request_passes(info: VideoModelInfo) -> None:
    check_request(request(model="tiny-wan", image="aGk=", steps=50, guidance_scale=2.0), info)


@pytest.mark.parametrize(
    ("fields", "field", "advice"),
    [({"model": "other"}, "model", "use 'tiny-wan'"),
     ({"width": 72}, "width", "use 64 or 80"),
     ({"height": 4090}, "height", "multiple of 16"),
     ({"width": 160, "height": 160}, "width", "recommended sizes are 64x64"),
     ({"num_frames": 37}, "num_frames", "from 1 to 33"),
     ({"steps": 51}, "steps", "from 1 to 50"),
     ({"guidance_scale": 11.0}, "guidance_scale", "from 1 to 10"),
     ({"sampler": "ode", "steps": 5}, "steps", "1 to 4"),
     ({"sampler": "sde", "guidance_scale": 2.0}, "guidance_scale", "no guidance")],
)
def test_a_refusal_names_the_field_and_what_to_use(
    info: VideoModelInfo, fields: dict[str, Any], field: str, advice: str
) -> None:
    with pytest.raises(RequestRefused, match=advice) as refusal:
        check_request(request(**fields), info)
    assert refusal.value.field == field


@pytest.mark.parametrize(("tasks", "image"), [(["i2v"], None), (["t2v"], "aGk=")])
def test_a_task_the_model_lacks_is_refused(info: VideoModelInfo, tasks: list[str], image: str | None) -> None:
    with pytest.raises(RequestRefused) as refusal:
        check_request(request(image=image), info.model_copy(update={"tasks": tasks}))
    assert refusal.value.field == "image"


def test_a_sampler_the_model_lacks_is_refused(info: VideoModelInfo) -> None:
    with pytest.raises(RequestRefused, match="takes euler"):
        check_request(request(sampler="unipc"), info.model_copy(update={"samplers": ["euler"]}))


def test_rcm_defaults_to_its_four_steps_without_guidance(info: VideoModelInfo) -> None:
    """What the model takes by default may be beyond rCM; leaving it out must still be a good request."""
    guided = info.model_copy(update={"guidance_scale": info.guidance_scale.model_copy(update={"default": 5.0})})
    check_request(request(sampler="sde"), guided)
    sampling = resolve_sampling(request(sampler="sde"), guided)
    assert (sampling.steps, sampling.guidance_scale) == (4, 1.0)
    default = resolve_sampling(request(), guided)
    assert (default.sampler, default.steps, default.guidance_scale) == ("euler", 10, 5.0)
