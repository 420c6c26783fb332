"""Transformer and decoder learn the texture of what moves."""

from argparse import Namespace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample

from training.evaluation.pixels import carried_error, grain
from training.video.fleet import Fleet
from training.video.models import new_vae
from training.video.student import OwnSteps, Pool, Student, farthest_first, few_steps
from training.video.texture import Texture
from training.video.whole_clip import enable_whole_clip

ARGS = Namespace(device="cpu", compile=False, texture=2.0, exact=0.5, grain=0.5, adversary=0.5, steady=1.0,
                 alone_steps=1, texture_rows=1, window=6)


@pytest.fixture
def whole_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    for patched in (WanResample, WanCausalConv3d):
        monkeypatch.setattr(patched, "forward", patched.forward)  # put back after the test
    enable_whole_clip()
    torch.manual_seed(0)


def _pool() -> Pool:
    latents = torch.randn(2, 16, 2, 8, 8)
    return Pool(latents=latents, condition=torch.zeros_like(latents), pictured=torch.ones(2, dtype=torch.bool),
                tokens=torch.ones(2, 96, dtype=torch.long), video=torch.randint(256, (2, 3, 5, 32, 32)).to(torch.uint8),
                camera=torch.eye(3)[:2].expand(2, 5, 2, 3))


def test_encoder_and_so_the_latents_stay_as_they_are(whole_clip: None) -> None:
    vae = new_vae()
    texture = Texture(vae, ARGS, Fleet("cpu"))
    before = {name: value.clone() for name, value in texture.vae.state_dict().items()}
    opponent = [value.clone() for value in texture.opponent.parameters()]
    pool = _pool()
    true, (high, wide) = texture.window(pool.video, pool.latents, pool.camera)
    texture.step(pool.latents[..., high, wide], true, 1.0)
    after = texture.vae.state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])} == {
        "decoder", "post_quant_conv"}
    assert any(not torch.equal(a, b) for a, b in zip(texture.opponent.parameters(), opponent, strict=True))
    assert all(torch.equal(value, vae.state_dict()[name]) for name, value in before.items())  # the teacher's own stays


def test_a_window_shows_the_pixels_of_its_latents(whole_clip: None) -> None:
    latents = torch.arange(64.0).view(1, 1, 1, 8, 8).expand(1, 16, 2, 8, 8)
    pixels = latents[:, :3].repeat_interleave(4, -2).repeat_interleave(4, -1).repeat(1, 1, 2, 1, 1).to(torch.uint8)
    true, _ = Texture(new_vae(), ARGS, Fleet("cpu")).window(pixels, latents, torch.eye(3)[:2].expand(1, 2, 2, 3))
    assert true.latents.shape[-2:] == (6, 6)
    assert torch.allclose((true.video[:, :, 0, ::4, ::4] + 1) * 127.5, true.latents[:, :3, 0], atol=1e-3)


class Recording(Student):
    """Always says the same velocity, which learns; notes where it was asked."""

    def velocity(self, noisy, sigma, condition, pictured, text) -> torch.Tensor:
        self.asked = [*getattr(self, "asked", []), (float(sigma[0]), torch.is_grad_enabled())]
        return torch.zeros_like(noisy) + self.reader.head.bias[0]


@pytest.mark.parametrize("turn", range(3))
def test_own_steps_go_the_samplers_way_and_only_the_last_one_learns(turn: int) -> None:
    student = Recording(8)
    student.paths.seed(turn)
    own = student.own_steps(_pool(), torch.tensor([0, 1]))
    grid = few_steps(len(student.asked))
    assert [sigma for sigma, _ in student.asked] == pytest.approx(grid[:-1])
    assert [learns for _, learns in student.asked] == [False] * (len(student.asked) - 1) + [True]
    assert own.sigma == pytest.approx(grid[-2])
    assert own.velocity.requires_grad
    assert not own.noisy.requires_grad
    assert all(now > then for now, then in pairwise(grid))


class Ending(Student):
    """Ends where it is told to."""

    end: torch.Tensor

    def own_steps(self, pool: Pool, rows: torch.Tensor) -> OwnSteps:
        noisy = torch.randn_like(self.end)
        self.said = ((noisy - self.end) / 0.5).requires_grad_()
        return OwnSteps(noisy=noisy, sigma=0.5, velocity=self.said)


def test_where_the_picture_is_given_the_mean_square_counts_in_full_elsewhere_in_part(whole_clip: None) -> None:
    pool, student = _pool(), Ending(8)
    texture = Texture(new_vae(), ARGS, Fleet("cpu"))
    student.end = pool.latents + 0.1
    loss, _ = student.texture_loss(pool, torch.tensor([0, 1]), texture, 1.0)
    loss.backward()
    assert student.said.grad is not None
    undecoded = student.said.grad[1]
    given, moving = undecoded[:, 0].mean(), undecoded[:, 1].mean()
    assert float(given) < 0  # it ended too high: less velocity would have led higher still
    assert float(moving) == pytest.approx(0.5 * float(given), rel=1e-3)
    assert float(student.said.grad[0].std()) > 5 * float(undecoded.std())  # the pixels' part


def test_the_pixels_teach_the_last_step_to_come_nearer(whole_clip: None) -> None:
    pool = _pool()
    texture = Texture(new_vae(), ARGS, Fleet("cpu"))
    true, (high, wide) = texture.window(pool.video, pool.latents, pool.camera)
    made = pool.latents[..., high, wide] + torch.randn_like(true.latents)
    gradient, told = texture.step(made, true, 0.0)
    _, after = texture.step(made - 0.5 * gradient / gradient.norm() * made.norm(), true, 0.0)
    assert float(after["means"]) < float(told["means"])


def test_a_blurred_frame_has_less_grain_and_a_flat_one_none() -> None:
    video = torch.rand((2, 3, 5, 32, 32))
    blurred = F.avg_pool3d(video, (1, 3, 3), 1, (0, 1, 1))
    assert float(grain(blurred).mean()) < 0.5 * float(grain(video).mean())
    assert float(grain(torch.full((2, 3, 5, 32, 32), 0.5)).max()) < 0.01


@pytest.mark.parametrize("starts", [(0, 2), (2, 0)])
def test_a_window_keeps_its_place_before_the_moving_camera(
    whole_clip: None, monkeypatch: pytest.MonkeyPatch, starts: tuple[int, int]
) -> None:
    """World x to colour, so that a window's camera, were it about the wrong centre, would not carry its pixels."""
    chosen = iter(starts)
    monkeypatch.setattr("training.video.texture.random.randint", lambda low, high: next(chosen))
    turn, frames, side = 0.3, 5, 32
    angles = torch.linspace(0, turn, frames)
    camera = torch.stack([torch.stack([angles.cos(), angles.sin(), 0 * angles], -1),
                          torch.stack([-angles.sin(), angles.cos(), 0 * angles], -1)], dim=-2)[None]
    places = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    world = torch.einsum("trc,hwc->trhw", camera[0], torch.stack([x, y, torch.ones_like(x)], -1))
    video = (127.5 + 3 * world[:, :1]).expand(-1, 3, -1, -1).transpose(0, 1)[None].round().to(torch.uint8)
    texture = Texture(new_vae(), ARGS, Fleet("cpu"))
    true, _ = texture.window(video, torch.zeros(1, 16, 2, 8, 8), camera)
    error = carried_error(true.video, true.camera, [0, 2])
    assert float(error[error < 1].max()) < 0.02
    assert float(texture._unsteady(true.video, true)) == 0
    flickering = true.video + 0.2 * torch.randn_like(true.video)
    assert float(texture._unsteady(flickering, true)) > 0.05


def test_clips_whose_camera_moves_farthest_are_decoded_first() -> None:
    nothing = torch.zeros(4, 1)
    camera = torch.zeros(4, 33, 2, 3)
    camera[1, :, 0, 2] = torch.linspace(5, 45, 33)  # to the right, from a place that does not count
    camera[2, :, 1, 2] = torch.linspace(0, -60, 33)  # up
    camera[3, :, :, :2] = torch.eye(2) * 1.4  # a zoom keeps its centre
    pool = Pool(latents=nothing, condition=nothing, pictured=nothing, tokens=nothing, video=nothing, camera=camera)
    assert farthest_first(pool, torch.tensor([0, 1, 2]))[:2].tolist() == [2, 1]
    assert farthest_first(pool, torch.tensor([3, 1]))[0] == 1
