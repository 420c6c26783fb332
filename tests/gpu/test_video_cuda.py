"""The model path on a CUDA device."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from contracts.videos import RenderStage, VideoRequest
from tests.checkpoints.tiny_wan import save_tiny_wan
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed, generate
from video_service.render.progress import RenderCanceled, silent
from video_service.render.solvers import Noise
from video_service.settings import DeviceChoice, DtypeChoice, VideoSettings
from video_service.weights.host import Slot, pinned

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def picture_png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((96, 64), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def load(folder: Path, device: DeviceChoice, dtype: DtypeChoice) -> Deployed:
    settings = VideoSettings(model=str(folder), device=device, dtype=dtype)
    return load_model(find_model(settings), settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("tiny") / "wan")


def render(model: Deployed, output: Path, *, image: bytes | None = None, sampler: str = "euler") -> np.ndarray:
    request = VideoRequest(
        prompt="slow zoom in", image=image, width=96, height=64, num_frames=9, fps=16, seed=3
    ).model_copy(update={"sampler": sampler})
    generate(model, request, output, silent)
    with av.open(str(output)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(float)


@pytest.mark.parametrize("sampler", ["euler", "unipc", "ode", "sde"])
def test_a_seed_means_the_same_clip_on_cpu_and_cuda(folder: Path, tmp_path: Path, sampler: str) -> None:
    """Noise is drawn on the CPU, so in float32 the frames differ by rounding alone."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    frames = [
        render(load(folder, device, "float32"), tmp_path / "v.mp4", sampler=sampler) for device in ("cpu", "cuda")
    ]
    assert np.abs(frames[0] - frames[1]).mean() < 0.5
    assert frames[0].std() > 4.0


def test_auto_is_cuda_in_bfloat16_and_renders_a_picture(folder: Path, tmp_path: Path) -> None:
    model = load(folder, "auto", "auto")
    assert (model.info.engine, model.dtype) == ("torch-cuda", torch.bfloat16)
    assert render(model, tmp_path / "v.mp4", image=picture_png()).shape == (9, 64, 96, 3)


def test_a_cancel_on_cuda_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    def stop(stage: RenderStage, done: int, total: int) -> None:
        if stage == "denoise" and done == 1:
            raise RenderCanceled

    request = VideoRequest(prompt="zoom", width=64, height=64, num_frames=9, fps=16, seed=3)
    with pytest.raises(RenderCanceled):
        generate(load(folder, "cuda", "auto"), request, tmp_path / "v.mp4", stop)
    assert list(tmp_path.iterdir()) == []


def test_noise_drawn_on_the_device_is_that_of_a_generator_there() -> None:
    """As TurboDiffusion draws it: one generator a clip, float32, a draw after another."""
    cuda = torch.device("cuda")
    noise = Noise([3, 4], (2, 3, 4), cuda, drawn_on=cuda)
    theirs = [torch.Generator(cuda).manual_seed(seed) for seed in (3, 4)]
    for _ in range(2):
        expected = torch.cat([torch.randn((1, 2, 3, 4), generator=own, device=cuda) for own in theirs])
        assert torch.equal(noise.draw(), expected)


def test_layers_in_turns_compute_as_on_the_host_while_others_are_copied() -> None:
    """Six runs of three networks that take turns, each with the weights of its own to the last layer."""
    networks = [nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(6))).requires_grad_(False)
                for _ in range(3)]
    hosts = [pinned(network)[0] for network in networks]
    slot = Slot(hosts[0], lambda network: list(network.children()), torch.device("cuda"))
    x = torch.randn(64, 2048)
    expected = [network(x) for network in networks]
    for turn in range(6):
        slot.expect(1, hosts[(turn + 1) % 3])
        torch.testing.assert_close(slot.run(hosts[turn % 3], x.cuda()).cpu(), expected[turn % 3], rtol=1e-2, atol=1e-4)
    assert slot.waited_s() >= 0
