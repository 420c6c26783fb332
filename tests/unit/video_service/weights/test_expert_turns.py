"""Two experts in the memory of one: the frames are the same, and the next one's weights follow behind the first's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from contracts.videos import VideoRequest
from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.tiny_families import save_tiny_family, tiny_parts
from tests.checkpoints.tiny_lora import write_lora
from tests.unit.video_service.conftest import load_tiny
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed, generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings
from video_service.weights.host import Slot
from video_service.weights.lora import Lora


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp("turns") / "experts", "wan2.2-experts-t2v")


@pytest.fixture(scope="module")
def both(folder: Path) -> Deployed:
    return load_tiny(folder)


@pytest.fixture(scope="module")
def in_turns(folder: Path) -> Deployed:
    settings = VideoSettings(model=str(folder), device="cpu", dtype="float32", experts="one")
    return load_model(find_model(settings), settings)


@pytest.mark.parametrize("sampling", [
    {"steps": 4, "guidance_scale": 3.0, "guidance_scale_2": 2.0}, {"steps": 4, "guidance_scale_2": 1.0},
    {"steps": 4, "guidance_scale": 3.0, "guidance_scale_2": 1.0}, {"steps": 1}, {"sampler": "unipc", "steps": 5},
])
def test_the_frames_are_those_of_both_in_memory_clip_after_clip(
    both: Deployed, in_turns: Deployed, sampling: dict[str, Any]
) -> None:
    for seed in (1, 2):
        request = a_request(sampling=sampling, seed=seed)
        (latents, frames), (expected, own) = ours(in_turns.model, request)[0], ours(both.model, request)[0]
        assert torch.equal(latents, expected)
        assert (frames == own).all()


def test_a_canceled_render_leaves_the_next_one_as_it_was(both: Deployed, in_turns: Deployed) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "denoise" and done == 3:
            raise InterruptedError

    request = a_request(sampling={"steps": 4})
    with pytest.raises(InterruptedError):
        ours(in_turns.model, request, report=stop)
    assert torch.equal(ours(in_turns.model, request)[0][0], ours(both.model, request)[0][0])


def test_loras_take_turns_too_and_leave_the_experts_as_they_were(
    both: Deployed, in_turns: Deployed, tmp_path: Path
) -> None:
    network = tiny_parts("wan2.2-experts-t2v")["transformer"]
    lora = Lora(path=write_lora(tmp_path / "style.safetensors", network, "kohya"), scale=0.7, digest="d")
    request = a_request(sampling={"steps": 4})
    plain, changed = ours(both.model, request)[0][0], ours(both.model.adapted([lora]), request)[0][0]
    assert not torch.equal(plain, changed)
    assert torch.equal(ours(in_turns.model.adapted([lora]), request)[0][0], changed)
    assert torch.equal(ours(in_turns.model, request)[0][0], plain)


def test_what_was_waited_is_on_the_timings_and_less_memory_is_asked_for(
    both: Deployed, in_turns: Deployed, tmp_path: Path
) -> None:
    request = VideoRequest(prompt="a kite", width=64, height=64, num_frames=5, fps=16, seed=1, steps=4)
    timings = generate(in_turns, request, tmp_path / "v.mp4", silent).timings
    assert 0 < timings["expert_switch"] < timings["denoise"]
    assert "expert_switch" not in generate(both, request, tmp_path / "v.mp4", silent).timings
    assert 0 < (in_turns.info.memory_bytes or 0) < (both.info.memory_bytes or 0)


class Layered(nn.Module):
    """Three layers and a weight beside them; each use is noted."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(3))
        self.beside = nn.Parameter(torch.tensor([value]))
        for layer in self.layers:
            nn.init.constant_(cast(nn.Linear, layer).weight, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.beside
        for layer in self.layers:
            x = layer(x)
        return x * self.beside


@torch.no_grad()
def test_each_layer_is_replaced_behind_its_last_use_and_is_there_before_its_first() -> None:
    first, second = Layered(2.0), Layered(3.0)
    slot = Slot(first, layers_of, torch.device("cpu"))
    holds: list[list[float]] = []
    slot.network.layers[2].register_forward_pre_hook(lambda *_: holds.append(
        [float(layer.weight) for layer in slot.network.layers]))

    def run(network: Layered) -> float:
        return float(slot.run(network, torch.ones(1)))

    slot.expect(2, second)
    assert [run(first), run(first)] == [2.0**5] * 2
    slot.expect(1, second)
    slot.waited_s()
    assert run(second) == 3.0**5
    assert slot.waited_s() == 0.0, "it was there already"
    assert run(first) == 2.0**5, "also where nobody said that it would be next"
    assert slot.waited_s() > 0
    assert holds == [[2, 2, 2], [3, 3, 2], [3, 3, 3], [2, 2, 2]]
    assert float(first.beside) == 2.0


def layers_of(network: nn.Module) -> Sequence[nn.Module]:
    return list(cast(Layered, network).layers)
