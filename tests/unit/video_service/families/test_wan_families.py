"""The other families of Wan's kind: frames are those of diffusers' pipelines, and specs are the authors'."""

from pathlib import Path
from typing import Any

import pytest
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from PIL import Image

from contracts.models import Sampler
from tests.checkpoints.parity import a_request, assert_same, ours, theirs
from tests.checkpoints.tiny_families import save_tiny_family
from tests.unit.video_service.conftest import load_tiny
from video_service.model import find_model
from video_service.render.generate import Deployed
from video_service.settings import VideoSettings
from web.worker.image import fit_picture

NAMES = ("wan2.1-i2v-clip", "wan2.1-flf2v", "wan2.2-experts", "wan2.2-experts-t2v", "wan2.2-ti2v")
SAMPLERS: list[tuple[Sampler, int]] = [("euler", 4), ("unipc", 5)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny_family(tmp_path_factory.mktemp(name), name) for name in NAMES}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Deployed]:
    return {name: load_tiny(folder) for name, folder in folders.items()}


@pytest.mark.parametrize(("name", "family", "tasks", "scales", "multiple", "frames"), [
    ("wan2.1-i2v-clip", "wan2.1", ["i2v"], (5.0, None), 16, 81),
    ("wan2.1-flf2v", "wan2.1-flf2v", ["flf2v"], (5.0, None), 16, 81),
    ("wan2.2-experts", "wan2.2-a14b", ["i2v"], (3.5, 3.5), 16, 81),
    ("wan2.2-experts-t2v", "wan2.2-a14b", ["t2v"], (4.0, 3.0), 16, 81),
    ("wan2.2-ti2v", "wan2.2-ti2v", ["t2v", "i2v"], (5.0, None), 32, 121),
])
def test_each_checkpoint_is_of_one_family_whose_spec_is_the_authors_own(
    folders: dict[str, Path], name: str, family: str, tasks: list[str], scales: tuple[float, float | None],
    multiple: int, frames: int,
) -> None:
    source = find_model(VideoSettings(model=str(folders[name]), device="cpu", dtype="float32"))
    info = source.info
    second = None if info.guidance_scale_2 is None else info.guidance_scale_2.default
    assert (source.family.name, info.family, info.tasks) == (family, family, tasks)
    assert (info.guidance_scale.default, second) == scales
    assert (info.size_multiple, info.num_frames.default, info.num_frames.step) == (multiple, frames, 4)


@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_an_image_seen_by_clip_gives_the_pipelines_frames(
    folders: dict[str, Path], models: dict[str, Deployed], picture: Image.Image, sampler: Sampler, steps: int,
    scale: float,
) -> None:
    name = "wan2.1-i2v-clip"
    request = a_request(image=picture, sampling={"sampler": sampler, "steps": steps, "guidance_scale": scale})
    [mine] = ours(models[name].model, request)
    assert_same(mine, theirs(WanImageToVideoPipeline.from_pretrained(folders[name]), request, image=picture))


@pytest.mark.parametrize(("sampler", "steps", "scale"), [("euler", 4, 1.0), ("unipc", 5, 3.0)])
def test_a_first_and_a_last_image_give_the_pipelines_frames(
    folders: dict[str, Path], models: dict[str, Deployed], picture: Image.Image, sampler: Sampler, steps: int,
    scale: float,
) -> None:
    """At the authors' shift; two clips together are those rendered alone."""
    sampling = {"sampler": sampler, "steps": steps, "guidance_scale": scale}
    requests = [
        a_request(image=image, last_image=last, sampling=sampling, seed=seed)
        for seed, image, last in ((1, picture, picture.rotate(90)), (2, picture.rotate(180), picture))
    ]
    pipeline = WanImageToVideoPipeline.from_pretrained(folders["wan2.1-flf2v"])
    together = ours(models["wan2.1-flf2v"].model, *requests)
    for request, mine in zip(requests, together, strict=True):
        expected = theirs(pipeline, request, shift=16.0, image=request.image, last_image=request.last_image)
        assert_same(mine, expected)


@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS)
@pytest.mark.parametrize(("name", "shift"), [("wan2.2-experts", 5.0), ("wan2.2-experts-t2v", 12.0)])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (3.0, 2.0)])
def test_two_experts_give_the_pipelines_frames(
    folders: dict[str, Path], models: dict[str, Deployed], picture: Image.Image, sampler: Sampler, steps: int,
    name: str, shift: float, scales: tuple[float, float],
) -> None:
    """Each denoises its own steps, with its own scale, at the shift that the authors use."""
    image = picture if name == "wan2.2-experts" else None
    sampling = {"sampler": sampler, "steps": steps, "guidance_scale": scales[0], "guidance_scale_2": scales[1]}
    request = a_request(image=image, sampling=sampling)
    model: Any = models[name].model
    calls: dict[str, int] = dict.fromkeys(("transformer", "transformer_2"), 0)

    def count(part: str) -> Any:
        def counted(*_: Any) -> None:
            calls[part] += 1
        return counted

    hooks = [getattr(model, part).register_forward_pre_hook(count(part)) for part in calls]
    [mine] = ours(model, request)
    for hook in hooks:
        hook.remove()
    assert min(calls.values()) > 0, "both experts had steps of their own"
    kind: Any = WanPipeline if image is None else WanImageToVideoPipeline
    call = {} if image is None else {"image": image}
    pipeline = kind.from_pretrained(folders[name])
    assert_same(mine, theirs(pipeline, request, shift=shift, guidance_scale_2=scales[1], **call))


@pytest.mark.parametrize(("sampler", "steps"), SAMPLERS)
@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_time_for_each_frame_gives_the_pipelines_frames(
    folders: dict[str, Path], models: dict[str, Deployed], picture: Image.Image, sampler: Sampler, steps: int,
    with_image: bool, scale: float,
) -> None:
    """An image is the first latent frame, at time 0, and stays what it is."""
    image = picture if with_image else None
    sampling = {"sampler": sampler, "steps": steps, "guidance_scale": scale}
    request = a_request(image=image, sampling=sampling, width=96)
    [mine] = ours(models["wan2.2-ti2v"].model, request)
    if image is None:
        expected = theirs(WanPipeline.from_pretrained(folders["wan2.2-ti2v"]), request, shift=5.0)
    else:
        pipeline = WanImageToVideoPipeline.from_pretrained(folders["wan2.2-ti2v"])
        expected = theirs(pipeline, request, shift=5.0, image=fit_picture(image, 96, 64))
    assert_same(mine, expected, held=1 if with_image else 0)
