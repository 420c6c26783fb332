"""Clips that are denoised as one: each is what it is alone, and one that leaves takes nothing from the others."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.videos import VideoRequest
from tests.checkpoints.parity import Frames, a_request, ours
from tests.checkpoints.tiny_families import save_tiny_family
from tests.checkpoints.turbowan import TOPK, load_reference, save_base, save_published, weights_of
from tests.unit.video_service.conftest import load_tiny
from video_service.families.base import Batch, RenderRequest
from video_service.families.convert.command import convert
from video_service.render.generate import Deployed, generate, generate_together
from video_service.render.progress import RenderCanceled, StageClock, silent
from video_service.render.render import render

# Of float32 on a CPU: one product of several clips sums in another order than several of one.
LATENTS, LEVELS = 1e-4, 1
SAMPLED: list[tuple[str, dict[str, Any]]] = [
    ("tiny", {"sampler": "unipc", "steps": 5, "guidance_scale": 3.0}), ("tiny", {"sampler": "sde", "steps": 4}),
    ("wan2.1-i2v-clip", {"guidance_scale": 3.0}), ("wan2.1-flf2v", {}),
    ("wan2.2-experts", {"guidance_scale": 3.0, "guidance_scale_2": 2.0}),
    ("wan2.2-ti2v", {"sampler": "unipc"}), ("anyflow", {"sampler": "flowmap"}),
    ("i2vgen-xl", {"sampler": "ddim", "guidance_scale": 3.0}), ("turbowan", {"sampler": "sde"}),
]
WITHOUT_PICTURE = ("anyflow", "turbowan")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Deployed) -> dict[str, Deployed]:
    folder = tmp_path_factory.mktemp("batch")
    published = save_published(folder / "turbo.pth", weights_of(load_reference()))
    convert(published, save_base(folder / "base"), folder / "turbowan", topk=TOPK)
    names = {name for name, _ in SAMPLED} - {"tiny", "turbowan"}
    saved = {name: save_tiny_family(folder / name, name, shallow=True) for name in sorted(names)}
    return {"tiny": tiny_model, "turbowan": load_tiny(folder / "turbowan")} | {
        name: load_tiny(path) for name, path in saved.items()}


def three(name: str, sampling: dict[str, Any], picture: Image.Image) -> list[RenderRequest]:
    """Requests that one batch may hold."""
    with_picture = name not in WITHOUT_PICTURE
    return [
        a_request(
            prompt=prompt, seed=seed, sampling=sampling, image=picture.rotate(90 * seed) if with_picture else None,
            last_image=picture.rotate(90 * seed + 90) if name == "wan2.1-flf2v" else None,
            width=96 if name == "wan2.2-ti2v" else 64,
        ) for seed, prompt in ((1, "zoom in"), (2, "a kite"), (3, "pan"))
    ]


@pytest.mark.parametrize(("name", "sampling"), SAMPLED)
def test_each_clip_of_a_batch_is_what_it_is_alone(
    models: dict[str, Deployed], picture: Image.Image, name: str, sampling: dict[str, Any]
) -> None:
    model, requests = models[name].model, three(name, sampling, picture)
    assert models[name].info.batches
    alone = [ours(model, request)[0] for request in requests]
    for (latents, frames), (expected, own) in zip(ours(model, *requests), alone, strict=True):
        assert float((latents - expected).norm() / expected.norm()) < LATENTS
        assert np.abs(frames.astype(int) - own).max() <= LEVELS
    assert np.abs(alone[0][1].astype(int) - alone[1][1]).max() > 8, "they are different clips"


@pytest.mark.parametrize(("name", "sampling"), SAMPLED)
def test_who_leaves_is_out_from_the_next_step_on_and_the_others_go_on_as_they_were(
    models: dict[str, Deployed], picture: Image.Image, name: str, sampling: dict[str, Any]
) -> None:
    model, requests, gone = models[name].model, three(name, sampling, picture), {0, 2}
    seen, sinks = list[int](), [Frames() for _ in requests]
    counting: Any = Counting(model, seen)
    render(counting, Batch(tuple(requests)), sinks, StageClock(silent), leaving(gone, 2))
    assert seen[:3] == [3, 3, 3 - len(gone)]
    for place, request in enumerate(requests):
        if place in gone:
            assert sinks[place] == []
        else:
            frames = ours(model, request)[0][1]
            assert np.abs(np.concatenate(sinks[place]).astype(int) - frames).max() <= LEVELS


class Counting:
    """A model that notes how many clips each step has."""

    def __init__(self, model: Any, seen: list[int]) -> None:
        self._model, self._seen = model, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, state: Any, timestep: float, given: Any) -> Any:
        self._seen.append(len(state))
        return self._model.predict(state, timestep, given)


def clips(request: VideoRequest, folder: Path) -> list[tuple[VideoRequest, Path]]:
    for name in "abc":
        (folder / name).mkdir(exist_ok=True)
    return [(request.model_copy(update={"seed": seed, "prompt": f"zoom {name}"}), folder / name / "v.mp4")
            for seed, name in enumerate("abc")]


def test_each_request_of_a_batch_has_its_own_file_and_result(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    together = generate_together(tiny_model, clips(request_64, tmp_path), silent)
    for place, (request, path) in enumerate(clips(request_64, tmp_path)):
        result = together[place]
        assert result is not None
        assert (result.seed, result.batch, result.num_bytes) == (request.seed, 3, path.stat().st_size)
        assert sorted(file.name for file in path.parent.iterdir()) == [
            "last_frame.png", "spritesheet.jpg", "thumbnail.jpg", "v.mp4"]
        last = np.asarray(Image.open(path.parent / "last_frame.png")).astype(int)
        generate(tiny_model, request, path, silent)
        assert np.abs(np.asarray(Image.open(path.parent / "last_frame.png")) - last).max() <= LEVELS


def leaving(gone: set[int], after_looks: int) -> Any:
    """Nobody has left at so many looks."""
    looks = itertools.count()
    return lambda: frozenset(gone if next(looks) >= after_looks else ())


@pytest.mark.parametrize("after_looks", [0, 1, 3])
def test_who_left_while_it_was_denoised_or_decoded_has_no_file(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path, after_looks: int
) -> None:
    results = generate_together(tiny_model, clips(request_64, tmp_path), silent, leaving({0}, after_looks))
    assert [result is None for result in results] == [True, False, False]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_batch_that_all_have_left_is_canceled_and_leaves_nothing(
    tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    with pytest.raises(RenderCanceled):
        generate_together(tiny_model, clips(request_64, tmp_path), silent, leaving({0, 1, 2}, 1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
