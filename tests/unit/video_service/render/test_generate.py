"""A render from request to file."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from contracts.refusal import ParameterRefused
from contracts.videos import RenderStage, VideoRequest
from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.unit.video_service.conftest import load_tiny, network
from video_service.layers.memo import Memo
from video_service.render.generate import Deployed, generate
from video_service.render.progress import RenderCanceled, silent
from web.worker.image import ImageUnreadable


@pytest.mark.parametrize("sampler", ["euler", "unipc", "ode", "sde"])
@pytest.mark.parametrize("with_picture", [True, False])
def test_every_sampler_renders_with_and_without_a_picture(
    tiny_model: Deployed, request_64: VideoRequest, picture_png: bytes, tmp_path: Path, sampler: str,
    with_picture: bool,
) -> None:
    """The result states every effective parameter, and the file is what the result says."""
    image = picture_png if with_picture else None
    request = request_64.model_copy(update={"sampler": sampler, "image": image, "num_frames": 5})
    result = generate(tiny_model, request, tmp_path / "video.mp4", silent)
    data = (tmp_path / "video.mp4").read_bytes()
    assert (result.num_bytes, result.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (result.sampler, result.steps, result.guidance_scale, result.seed) == (sampler, 2, 1.0, 7)
    assert (result.model, result.revision) == ("tiny-wan", tiny_model.info.revision)
    assert set(result.timings) == {"text", "condition", "denoise", "decode", "write", "total"}
    assert result.timings["total"] >= sum(s for name, s in result.timings.items() if name != "total") * 0.99
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert len(list(video.decode(video=0))) == result.num_frames == 5


def test_the_same_request_gives_the_same_file_and_another_seed_another(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    digests = [
        generate(tiny_model, request_64.model_copy(update={"seed": seed}), tmp_path / "v.mp4", silent).sha256
        for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_words_and_a_picture_are_encoded_once_whatever_the_seed(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    looks = {"words": 0, "picture": 0}

    def count(name: str) -> Callable[..., None]:
        return lambda *_: looks.update({name: looks[name] + 1})

    model: Any = tiny_model.model
    hooks = [model.text_encoder.register_forward_hook(count("words")),
             model.vae.encoder.conv_in.register_forward_hook(count("picture"))]
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 77, 211)).save(stream, "PNG")  # which no other test renders
    once = request_64.model_copy(update={"image": stream.getvalue(), "prompt": "a pond that nobody saw before"})
    first, other_seed, other_words, other_length = (
        generate(tiny_model, once.model_copy(update=change), tmp_path / "v.mp4", silent) and dict(looks)
        for change in ({}, {"seed": 9}, {"prompt": "a hill, so new"}, {"num_frames": 5})
    )
    for hook in hooks:
        hook.remove()
    assert first == other_seed == {"words": 1, "picture": 1}
    assert other_words == {"words": 2, "picture": 1}
    assert other_length == {"words": 2, "picture": 2}


def test_what_is_kept_is_bounded_in_bytes_and_the_last_used_stays() -> None:
    memo, made = Memo(3000), list[str]()

    def get(key: str) -> torch.Tensor:
        return memo.get(key, lambda: made.append(key) or torch.zeros(1000, dtype=torch.uint8))

    for key in "abcabdabcd":
        get(key)
    assert "".join(made) == "abcdcd"


def test_stages_are_reported_in_order_and_each_to_its_end(
    tiny_model: Deployed, request_64: VideoRequest, picture_png: bytes, tmp_path: Path
) -> None:
    seen: list[tuple[RenderStage, int, int]] = []
    generate(
        tiny_model, request_64.model_copy(update={"image": picture_png}), tmp_path / "v.mp4",
        lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["text", "condition", "denoise", "decode", "write"]
    last = {stage: (done, total) for stage, done, total in seen}
    assert last == {"text": (1, 1), "condition": (1, 1), "denoise": (2, 2), "decode": (9, 9), "write": (9, 9)}


@pytest.mark.parametrize(("prompt", "negative", "scale", "cuts"), [
    ("zoom in", "blurred", 1.0, []),
    ("slow zoom in on the cat", "blurred", 1.0, [("prompt", "slow zoom in on")]),
    ("slow zoom in on the cat", "static, blurred and dull", 3.0, [("prompt", "slow zoom in on"),
                                                                ("negative prompt", "static, blurred")]),
])
def test_a_prompt_that_is_cut_says_after_which_words(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path, prompt: str, negative: str, scale: float,
    cuts: list[tuple[str, str]],
) -> None:
    """The tiny model reads 16 tokens, which are 15 letters and the end mark; a prompt that it never sees is not cut."""
    changes = {"prompt": prompt, "negative_prompt": negative, "guidance_scale": scale, "num_frames": 1, "steps": 1}
    result = generate(tiny_model, request_64.model_copy(update=changes), tmp_path / "v.mp4", silent)
    assert len(result.warnings) == len(cuts)
    for (name, words), warning in zip(cuts, result.warnings, strict=True):
        assert warning.startswith(f"The {name} is longer than the 16 tokens")
        assert f"after the words “{words}”" in warning


@pytest.mark.parametrize("stage_to_stop", ["text", "condition", "denoise", "decode"])
def test_a_canceled_render_leaves_no_file(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path, stage_to_stop: str
) -> None:
    def stop(stage: RenderStage, done: int, total: int) -> None:
        if stage == stage_to_stop and done > 0:
            raise RenderCanceled

    with pytest.raises(RenderCanceled):
        generate(tiny_model, request_64, tmp_path / "v.mp4", stop)
    assert list(tmp_path.iterdir()) == []
    assert generate(tiny_model, request_64, tmp_path / "v.mp4", silent).num_frames == 9  # the next one is unharmed


def test_a_request_out_of_bounds_is_refused_before_any_work(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    def no_work(*_: object) -> None:
        raise AssertionError("work was reported")

    with pytest.raises(ParameterRefused) as refusal:
        generate(tiny_model, request_64.model_copy(update={"num_frames": 37}), tmp_path / "v.mp4", no_work)
    assert refusal.value.field == "num_frames"


def test_bytes_that_are_no_picture_fail_the_render_by_name(
    tiny_model: Deployed, request_64: VideoRequest, picture_png: bytes, tmp_path: Path
) -> None:
    for broken in (b"!!", picture_png[: len(picture_png) // 2]):
        with pytest.raises(ImageUnreadable):
            generate(tiny_model, request_64.model_copy(update={"image": broken}), tmp_path / "v.mp4", silent)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_reaches_the_frames(
    tiny_model: Deployed, request_64: VideoRequest, picture_png: bytes, tmp_path: Path
) -> None:
    """With equal noise and words, another condition makes another video."""
    without = generate(tiny_model, request_64, tmp_path / "a.mp4", silent)
    with_it = generate(tiny_model, request_64.model_copy(update={"image": picture_png}), tmp_path / "b.mp4", silent)
    assert without.sha256 != with_it.sha256


def test_pictures_lie_beside_the_video(
    tiny_model: Deployed, tmp_path: Path, request_64: VideoRequest
) -> None:
    generate(tiny_model, request_64, tmp_path / "v.mp4", silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_frame.png", "spritesheet.jpg", "thumbnail.jpg", "v.mp4"]
    with av.open(str(tmp_path / "v.mp4")) as video, Image.open(tmp_path / "thumbnail.jpg") as thumbnail:
        first = next(video.decode(video=0)).to_ndarray(format="rgb24")
        difference = np.abs(first.astype(int) - np.asarray(thumbnail).astype(int)).mean()
    assert difference < 8, "the thumbnail is the first frame, but for two encodings"


def test_bfloat16_stays_near_float32(tiny_folder: Path, tmp_path: Path, request_64: VideoRequest) -> None:
    """The number format changes the frames by rounding only."""
    from video_service.model import find_model, load_model
    from video_service.settings import VideoSettings

    videos = []
    for dtype in ("float32", "bfloat16"):
        settings = VideoSettings(model=str(tiny_folder), device="cpu", dtype=dtype)
        model = load_model(find_model(settings), settings)
        assert network(model).patch_embedding.weight.dtype == getattr(torch, dtype)
        generate(model, request_64, tmp_path / "v.mp4", silent)
        with av.open(str(tmp_path / "v.mp4")) as video:
            videos.append(np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(float))
    assert np.abs(videos[0] - videos[1]).mean() < 4.0
    assert videos[0].std() > 4.0


def test_a_text_to_video_layout_renders_too(tmp_path: Path, request_64: VideoRequest) -> None:
    """16 channels, 8x VAE, no card: an ordinary Wan2.1 T2V folder."""
    model = load_tiny(save_tiny_wan(tmp_path / "wan", task="t2v", vae_scale=8, card=None))
    result = generate(model, request_64.model_copy(update={"steps": 1, "num_frames": 5}), tmp_path / "v.mp4", silent)
    assert (result.sampler, result.guidance_scale, result.num_frames) == ("unipc", 5.0, 5)
