"""Samplers against independent arithmetic."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image

from contracts.models import Sampler
from contracts.videos import RenderStage
from tests.checkpoints.parity import SEED, a_request, ours
from video_service.families.base import Batch
from video_service.model import find_model, wants_fp8, wants_int8
from video_service.render.generate import Deployed
from video_service.render.progress import RenderCanceled, StageClock, silent
from video_service.render.schedules import euler_sigmas, rcm_times, shift_sigma
from video_service.render.solvers import Noise
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable

SHAPE = (1, 16, 2, 16, 16)


@pytest.mark.parametrize("steps", [1, 2, 4, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_euler_visits_the_noise_levels_of_the_diffusers_scheduler(steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(euler_sigmas(steps, shift), np.asarray(scheduler.sigmas), atol=1e-6)


def test_a_shift_moves_levels_up_and_keeps_the_ends() -> None:
    assert shift_sigma(0.0, 3.0) == 0.0
    assert shift_sigma(1.0, 3.0) == 1.0
    assert shift_sigma(0.5, 3.0) == pytest.approx(0.75)
    assert shift_sigma(0.3, 1.0) == pytest.approx(0.3)


@pytest.mark.parametrize("sigma_max", [80.0, 200.0])
def test_rcm_starts_at_sigma_max_and_ends_clean(sigma_max: float) -> None:
    """On the straight path, noise to data at time t is t / (1 - t): the first time stands for sigma_max."""
    times = rcm_times(4, sigma_max)
    assert times[0] / (1 - times[0]) == pytest.approx(sigma_max)
    assert times[1:] == pytest.approx([math.tan(a) / (1 + math.tan(a)) for a in (1.5, 1.4, 1.0)] + [0.0])
    assert times == sorted(times, reverse=True)
    for refused in (0, 5):
        with pytest.raises(ValueError, match="1 to 4 steps"):
            rcm_times(refused, sigma_max)


def rcm_reference(
    network: Any, text_BLC: torch.Tensor, condition: torch.Tensor, steps: int, sigma_max: float, stochastic: bool
) -> torch.Tensor:
    """The formulas of rCM in a few lines, on their own."""
    generator = torch.Generator().manual_seed(SEED)
    angles = [*[math.atan(sigma_max), 1.5, 1.4, 1.0][:steps], 0.0]
    t = [math.sin(a) / (math.sin(a) + math.cos(a)) for a in angles]
    x = torch.randn(SHAPE, generator=generator).double() * t[0]
    for now, then in itertools.pairwise(t):
        inputs = torch.cat([x.float(), condition], dim=1)
        v = network(inputs, torch.tensor([1000 * now]), text_BLC, return_dict=False)[0].double()
        if stochastic:
            x = (1 - then) * (x - now * v) + then * torch.randn(SHAPE, generator=generator).double()
        else:
            x = x - (now - then) * v
    return x.float()


@pytest.mark.parametrize("sampler", ["ode", "sde"])
@pytest.mark.parametrize(("has_picture", "sigma_max"), [(True, 200.0), (False, 80.0)])
@pytest.mark.parametrize("steps", [1, 4])
@torch.inference_mode()
def test_rcm_follows_its_formulas(
    tiny_model: Deployed, picture: Image.Image, sampler: Sampler, has_picture: bool, sigma_max: float, steps: int
) -> None:
    model: Any = tiny_model.model
    request = a_request(
        image=picture if has_picture else None, num_frames=5, sampling={"sampler": sampler, "steps": steps}
    )
    given = model.encode(Batch((request,)), StageClock(silent))
    expected = rcm_reference(
        model.transformer, given.text_BLC, given.beside_BCTHW, steps, sigma_max, sampler == "sde"
    )
    [(mine, _)] = ours(model, request)
    torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)


def test_a_cancel_stops_before_the_next_step(tiny_model: Deployed) -> None:
    """The network runs no more once the report has said stop."""
    runs: list[int] = []
    model: Any = tiny_model.model
    hook = model.transformer.register_forward_pre_hook(lambda *_: runs.append(1))

    def stop_after_two(stage: RenderStage, done: int, total: int) -> None:
        if stage == "denoise" and done == 2:
            raise RenderCanceled

    try:
        with pytest.raises(RenderCanceled):
            ours(model, a_request(sampling={"steps": 8}), report=stop_after_two)
    finally:
        hook.remove()
    assert len(runs) == 2


def test_each_step_is_reported_once(tiny_model: Deployed) -> None:
    seen: list[tuple[str, int, int]] = []
    ours(
        tiny_model.model, a_request(sampling={"steps": 3}),
        report=lambda stage, done, total: seen.append((stage, done, total)),
    )
    assert [told for told in seen if told[0] == "denoise"] == [("denoise", done, 3) for done in range(4)]


@pytest.mark.parametrize(("wanted", "capability", "is_float8", "is_int8"), [
    ("none", (9, 0), False, False), ("fp8", (8, 0), True, False), ("auto", (9, 0), True, False),
    ("auto", (8, 9), True, False), ("auto", (8, 6), False, True), ("auto", None, False, False),
    ("int8", None, False, True), ("int8", (9, 0), False, True),
])
def test_float8_by_itself_only_where_the_gpu_has_such_products_and_else_int8(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, capability: tuple[int, int] | None, is_float8: bool, is_int8: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    device = "cpu" if capability is None else "cuda"
    settings = VideoSettings(quant_linear=wanted)
    assert (wants_fp8(settings, device), wants_int8(settings, device)) == (is_float8, is_int8)


@pytest.mark.parametrize(("sampler", "on_device"), [("sde", True), ("ode", True), ("euler", False), ("unipc", False)])
def test_only_rcm_draws_on_the_device_and_only_where_that_is_asked_for(
    tiny_model: Deployed, monkeypatch: pytest.MonkeyPatch, sampler: str, on_device: bool
) -> None:
    drawn: list[Any] = []

    class Seen(Noise):
        def __init__(self, *args: Any, drawn_on: Any) -> None:
            drawn.append(drawn_on)
            super().__init__(*args)

    monkeypatch.setattr("video_service.families.wan.model.Noise", Seen)
    model: Any = tiny_model.model
    placement = replace(model.placement, rcm_noise_on_device=True)
    batch = Batch((a_request(sampling={"sampler": sampler}),))
    for one in (model, replace(model, placement=placement)):
        one.solver(batch, None)
    assert drawn == ["cpu", torch.device("cpu") if on_device else "cpu"]


def test_noise_of_a_gpu_needs_one(tiny_folder: Path) -> None:
    settings = VideoSettings(model=str(tiny_folder), device="cpu", rcm_noise="cuda")
    with pytest.raises(ModelUnavailable, match="VIDEO_RCM_NOISE"):
        find_model(settings)
