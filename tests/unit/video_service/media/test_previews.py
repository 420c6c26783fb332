"""The pictures that go with a video."""

import io
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from PIL import Image

import video_service.media.preview
from contracts.videos import MAX_PREVIEW_BYTES, VideoRequest
from gateway.cli.serving.demo import default_picture
from tests.support.processes import REPOSITORY
from video_service.families.wan.model import WanModel
from video_service.layers.pixels import colour_card, coloured, fitted_colours, picture_tensor
from video_service.layers.wan.codec import TorchCodec, normalised
from video_service.media.mp4 import Previews
from video_service.media.preview import PREVIEW_SHARE, PREVIEW_SIDE, Allowance, Pixels, PreviewWriter, small_jpeg
from video_service.queue.files import preview_path
from video_service.render.generate import Deployed, generate, generate_together
from video_service.render.progress import silent


def grey_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame k is of the grey level 10 k."""
    return np.stack([np.full((height, width, 3), 10 * k, np.uint8) for k in range(count)])


def test_the_thumbnail_is_the_first_frame_and_the_sheet_spans_the_whole_video(tmp_path: Path) -> None:
    frames = grey_frames(21)
    previews = Previews(len(frames))
    for start in (0, 1, 5, 9, 13, 17):  # as the decoder hands them over
        previews.put(frames[start : 1 if start == 0 else start + 4])
    previews.write(tmp_path)
    first = Image.open(tmp_path / "thumbnail.jpg")
    assert (first.format, first.size) == ("JPEG", (64, 48))
    assert np.asarray(first).max() <= 3
    sheet = np.asarray(Image.open(tmp_path / "spritesheet.jpg").convert("L")).astype(int)
    assert sheet.shape == (4 * 48, 4 * 64)
    cells = [sheet[48 * (n // 4) + 24, 64 * (n % 4) + 32] for n in range(16)]
    assert cells == sorted(cells)
    assert (cells[0], cells[-1]) == pytest.approx((0, 200), abs=3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "last_frame.png")), frames[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_frame.png", "spritesheet.jpg", "thumbnail.jpg"]


@pytest.mark.parametrize(("count", "size"), [(1, (64, 48)), (5, (256, 96)), (2, (128, 48))])
def test_a_short_video_has_a_small_sheet(tmp_path: Path, count: int, size: tuple[int, int]) -> None:
    previews = Previews(count)
    previews.put(grey_frames(count))
    previews.write(tmp_path)
    assert Image.open(tmp_path / "spritesheet.jpg").size == size


def test_large_frames_are_reduced_on_the_sheet_only(tmp_path: Path) -> None:
    previews = Previews(1)
    previews.put(grey_frames(1, 480, 832))
    previews.write(tmp_path)
    assert Image.open(tmp_path / "thumbnail.jpg").size == (832, 480)
    assert Image.open(tmp_path / "spritesheet.jpg").size == (240, 138)


@pytest.mark.parametrize("sampler", ["euler", "unipc", "ode", "sde"])
def test_a_render_that_is_watched_makes_the_same_file_and_leaves_a_small_picture(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path, sampler: str
) -> None:
    asked = request_64.model_copy(update={"sampler": sampler, "steps": 3})
    digests = []
    for watched in (False, True):
        output = tmp_path / str(watched) / "video.mp4"
        output.parent.mkdir()
        request = asked.model_copy(update={"preview": watched})
        digests.append(generate(tiny_model, request, output, silent).sha256)
        assert preview_path(output).exists() == watched
    assert digests[0] == digests[1]
    with Image.open(preview_path(output)) as shown:
        assert (shown.format, shown.size) == ("JPEG", (16, 16))
    assert preview_path(output).stat().st_size <= MAX_PREVIEW_BYTES


def test_in_a_batch_each_clip_that_asks_for_it_has_its_own_picture(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    clips = []
    for place, preview in enumerate((True, False, True)):
        (tmp_path / str(place)).mkdir()
        asked = request_64.model_copy(update={"seed": place, "preview": preview})
        clips.append((asked, tmp_path / str(place) / "video.mp4"))
    generate_together(tiny_model, clips, silent)
    first, none, third = (preview_path(output) for _, output in clips)
    assert not none.exists()
    assert first.read_bytes() != third.read_bytes()


@pytest.mark.parametrize("side", [1, 60, 160, 720])
def test_a_preview_is_bounded_in_bytes_and_pixels_whatever_it_shows(side: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (side, 2 * side, 3), np.uint8)
    jpeg = small_jpeg(noise)
    assert len(jpeg) <= MAX_PREVIEW_BYTES
    with Image.open(io.BytesIO(jpeg)) as shown:
        assert max(shown.size) <= PREVIEW_SIDE


def test_who_has_pictures_never_waits_for_those_that_are_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a disk that takes none disturb."""
    may_go_on, written = threading.Event(), []

    def slow(frame_HWC: np.ndarray) -> bytes:
        may_go_on.wait(30)
        written.append(int(frame_HWC[0, 0, 0]))
        return b"jpeg"

    def pictures(level: int) -> Pixels:
        return lambda: ({0: np.full((2, 2, 3), level, np.uint8), 1: np.zeros((2, 2, 3), np.uint8)}, 0.0)

    monkeypatch.setattr(video_service.media.preview, "small_jpeg", slow)
    paths = {0: tmp_path / "preview.jpg", 1: tmp_path / "no such folder" / "preview.jpg"}
    with PreviewWriter(paths, Allowance(share=1e6)) as writer:
        for level in range(9):
            writer.offer(partial(pictures, level))
        may_go_on.set()
    assert written == [0, 0]
    assert (tmp_path / "preview.jpg").read_bytes() == b"jpeg"


@pytest.mark.parametrize("step_s", [0.004, 0.03, 0.5, 60.0])
@pytest.mark.parametrize("look_s", [0.0001, 0.003, 0.04])
def test_looks_cost_a_hundredth_of_the_steps_and_there_is_one_at_least(step_s: float, look_s: float) -> None:
    now_s = 0.0
    allowance, looks, began_s = Allowance(clock=lambda: now_s), 0, step_s
    for _ in range(100):
        now_s += step_s
        if allowance.permits():
            looks += 1
            now_s += look_s
            allowance.spend(look_s)
        assert looks >= 1
        assert looks == 1 or looks * look_s <= PREVIEW_SHARE * (now_s - began_s)
    affordable = PREVIEW_SHARE * (now_s - began_s) / look_s
    assert looks >= min(99, max(1, affordable - step_s / look_s - 1)), "and as many as that allows"


def test_a_loaded_model_knows_its_colours(tiny_model: Deployed) -> None:
    """No render waits while they are learned."""
    model = tiny_model.model
    assert isinstance(model, WanModel)
    assert model.colours.get(lambda: pytest.fail("learned in a render")).shape == (16 + 1, 3)


@pytest.mark.slow
def test_a_glimpse_has_the_colours_of_what_the_latents_stand_for() -> None:
    vae: AutoencoderKLWan = AutoencoderKLWan.from_pretrained(REPOSITORY / "models" / "video" / "vae").eval()
    codec = TorchCodec(vae)

    def latents(picture_BCTHW: torch.Tensor) -> torch.Tensor:
        return normalised(codec.encode_still(picture_BCTHW, 1), vae)[:, :, 0]

    card = colour_card(64, 64)
    with Image.open(default_picture()) as photograph, torch.inference_mode():
        small = photograph.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
        seen = coloured(latents(picture_tensor(small)[None, :, None]), fitted_colours(latents(card), card[:, :, 0]))
    wanted = np.asarray(small.resize((32, 32), Image.Resampling.BOX), np.float64)
    error = np.mean((wanted - seen[0].numpy()) ** 2)
    assert error < 0.15 * np.var(wanted), "a grey picture would have the whole of it"
