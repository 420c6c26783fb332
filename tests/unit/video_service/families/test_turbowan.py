"""TurboWan2.1 T2V from the file that its authors publish to frames, against numbers of their own network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from contracts.refusal import ParameterRefused
from contracts.videos import VideoRequest
from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.turbowan import TOLD, TOPK, save_published, weights_of
from tests.unit.video_service.conftest import load_tiny
from video_service.engines.__main__ import main as build_engines
from video_service.families.base import Batch, Layers, Placement
from video_service.families.convert.command import convert
from video_service.families.turbowan import _attention
from video_service.families.wan.model import WanConditioning
from video_service.model import find_model, load_model, open_model
from video_service.render.progress import silent
from video_service.render.schedules import rcm_times
from video_service.settings import VideoSettings
from video_service.weights.checkpoint import open_checkpoint
from web.worker.errors import ModelUnavailable

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=["plain", "quant"])
def folder(
    request: pytest.FixtureRequest, reference: Tensors, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Converted from either variant."""
    where, quant = tmp_path_factory.mktemp("turbo"), request.param == "quant"
    source = save_published(where / "TurboWan.pth", weights_of(reference), quant=quant)
    weights = convert(source, base, where / request.param, topk=TOPK)
    dequantised = weights["transformer"].dequantised
    assert dequantised == (20 if quant else 0), "q, k, v, o twice and two of the feed-forward, in two blocks"
    return where / request.param


def away(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def given_text(reference: Tensors, model: Any, sampling: Any) -> WanConditioning:
    return WanConditioning(
        text_BLC=reference["text"].to(model.placement.dtype), negative_BLC=None, beside_BCTHW=None, seen_BLC=None,
        sampling=sampling, warnings=(),
    )


def four_steps() -> Any:
    """Of the reference's clip: latents [16, 5, 16, 24]."""
    sampling = {"sampler": "sde", "steps": 4}
    return a_request(width=192, height=128, num_frames=17, sampling=sampling)


class Draws:
    """The reference's noises, in order; the last step's has weight 0."""

    def __init__(self, reference: Tensors) -> None:
        self._left: Iterator[torch.Tensor] = iter(
            [reference["noise"], *(reference[f"fresh_{step}"] for step in range(3)), torch.zeros(1)])

    def draw(self) -> torch.Tensor:
        return next(self._left).float()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-2), ("bfloat16", 2e-2)])
def test_velocities_at_each_step_are_those_of_the_authors_network(
    reference: Tensors, folder: Path, dtype: Any, tolerance: float
) -> None:
    """From the reference's own states, at the times that its network was told."""
    settings = VideoSettings(model=str(folder), device="cpu", dtype=dtype)
    model: Any = load_model(find_model(settings), settings).model
    request = four_steps()
    given, batch = given_text(reference, model, request.sampling), Batch((request,))
    solver: Any = model.solver(batch, given)
    solver._noise = Draws(reference)
    assert solver.timesteps == TOLD
    x = solver.start()
    for step, timestep in enumerate(solver.timesteps):
        velocity = reference[f"velocity_{step}"].float()
        assert away(model.predict(x, timestep, given), velocity) <= tolerance
        x = solver.step(step, velocity, x)
    assert x.dtype == torch.float64
    assert away(x, reference["state_3"]) <= 1e-3, "the states above were the reference's"


def test_the_loop_ends_where_theirs_does(reference: Tensors, folder: Path) -> None:
    request = four_steps()
    model: Any = load_tiny(folder).model
    given = given_text(reference, model, request.sampling)
    solver: Any = model.solver(Batch((request,)), given)
    solver._noise = Draws(reference)
    x = solver.start()
    for step, timestep in enumerate(solver.timesteps):
        x = solver.step(step, model.predict(x, timestep, given), x)
    assert away(x, reference["state_3"]) <= 1e-2


@pytest.mark.parametrize(("steps", "told"), [(1, [988.0]), (2, [988.0, 932.0]), (3, [988.0, 932.0, 852.0])])
def test_the_state_moves_by_the_exact_times_and_the_network_is_told_rounded_ones(
    reference: Tensors, folder: Path, steps: int, told: list[float]
) -> None:
    model: Any = load_tiny(folder).model
    request = a_request(sampling={"sampler": "ode", "steps": steps})
    solver: Any = model.solver(Batch((request,)), given_text(reference, model, request.sampling))
    assert solver.timesteps == told
    times, state = rcm_times(steps, 80.0), solver.start()
    moved = state - solver.step(0, torch.ones_like(state), state)
    torch.testing.assert_close(moved, torch.full_like(state, times[0] - times[1]), rtol=0, atol=1e-12)


def test_a_request_renders_by_the_models_own_defaults(folder: Path, tmp_path: Path) -> None:
    opened = open_model(VideoSettings(model=str(folder), device="cpu", dtype="float32"))
    info, engine = opened.info, opened.engine
    assert (info.family, info.profile, info.tasks, info.sizes[0]) == ("turbowan2.1", "turbowan", ["t2v"], "832x480")
    assert (info.num_frames.default, info.fps.default) == (81, 16)
    assert "sparse attention to 30% of the keys, a linear branch beside it" in info.engine_reason
    request = VideoRequest(prompt="slow zoom in", width=64, height=64, num_frames=5, fps=16, seed=7)
    result = engine(request, tmp_path / "video.mp4", silent)
    assert (result.sampler, result.steps, result.guidance_scale) == ("sde", 4, 1.0)
    assert (tmp_path / "video.mp4").stat().st_size == result.num_bytes > 0
    changes: list[dict[str, Any]] = [{"steps": 5}, {"guidance_scale": 5.0}, {"sampler": "unipc"}]
    for refused in changes:
        with pytest.raises(ParameterRefused):
            engine(request.model_copy(update=refused), tmp_path / "no.mp4", silent)


def test_clips_of_one_batch_are_those_rendered_alone(folder: Path) -> None:
    model = load_tiny(folder).model
    requests = [
        a_request(num_frames=5, seed=seed, prompt=f"shot {seed}", sampling={"sampler": "sde"}) for seed in (1, 2)
    ]
    together = ours(model, *requests)
    for request, (latents, _) in zip(requests, together, strict=True):
        [(alone, _)] = ours(model, request)
        torch.testing.assert_close(latents, alone, rtol=1e-4, atol=1e-4)
    assert away(together[0][0], together[1][0]) > 0.1


def test_building_engines_of_it_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STILLMOTION_DATA", str(tmp_path))
    assert build_engines(["build", "--model", str(folder), "--size", "64x64", "--frames", "5"]) == 1
    assert "no engines are built of turbowan2.1: it renders in torch alone" in capfd.readouterr().err


def test_all_of_the_keys_is_dense_attention_without_the_linear_branch(reference: Tensors, folder: Path) -> None:
    settings = VideoSettings(model=str(folder), device="cpu", dtype="float32", attention_topk=1.0)
    deployed = load_model(find_model(settings), settings)
    assert "dense attention, without the linear branch it was taught with" in deployed.info.engine_reason
    model: Any = deployed.model
    plain = WanTransformer3DModel.from_pretrained(folder / "transformer")
    latents, times = reference["noise"].float(), torch.tensor([988.0])
    expected = plain(latents, times, reference["text"].float(), return_dict=False)[0]
    found = model.predict(latents, 988.0, given_text(reference, model, four_steps().sampling))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("device", "triton", "sparse"), [
    ("cpu", False, True), ("cuda", True, True), ("cuda", False, False),
])
def test_where_nothing_attends_sparsely_the_model_is_dense(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, triton: bool, sparse: bool
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if triton else None)
    placement = Placement(device=torch.device(device), dtype=torch.bfloat16, weights=False, layers=Layers(topk=0.1))
    slas, placed, form = _attention(open_checkpoint(str(folder), folder), placement, ["transformer"])
    assert bool(slas) == sparse
    assert (form is None, placed.layers.topk) == ((True, 0.1) if sparse else (False, None))


def test_the_deployments_topk_goes_before_the_checkpoints(folder: Path) -> None:
    settings = VideoSettings(model=str(folder), device="cpu", dtype="float32", attention_topk=0.5)
    assert "sparse attention to 50%" in load_model(find_model(settings), settings).info.engine_reason


@pytest.mark.parametrize(("mark", "told"), [({"topk": 0}, "topk above 0"), (None, "topk above 0")])
def test_a_folder_whose_mark_or_projections_are_damaged_is_unavailable(
    reference: Tensors, base: Path, tmp_path: Path, mark: Any, told: str
) -> None:
    source = save_published(tmp_path / "t.pth", weights_of(reference))
    convert(source, base, tmp_path / "out", topk=TOPK)
    sla, config = (tmp_path / "out" / "transformer" / name for name in ("sla.safetensors", "config.json"))
    whole = sla.read_bytes()
    sla.write_bytes(whole[:-8])
    with pytest.raises(ModelUnavailable, match=r"sla\.safetensors cannot be used"):
        load_tiny(tmp_path / "out")
    sla.unlink()
    with pytest.raises(ModelUnavailable, match=r"sla\.safetensors cannot be used"):
        load_tiny(tmp_path / "out")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sla": mark}))
    with pytest.raises(ModelUnavailable, match=told):
        load_tiny(tmp_path / "out")
