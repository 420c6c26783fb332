"""A tiny checkpoint, made once, and the model loaded from it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.videos import VideoRequest
from tests.checkpoints.tiny_wan import save_tiny_wan
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed
from video_service.settings import VideoSettings


def load_tiny(folder: Path) -> Deployed:
    """Load a checkpoint folder in float32 on the CPU."""
    settings = VideoSettings(model=str(folder), device="cpu", dtype="float32")
    return load_model(find_model(settings), settings)


def network(deployed: Deployed) -> Any:
    """The transformer in it."""
    model: Any = deployed.model
    return model.transformer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from a second thread and lose much when the other cores are busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("tiny") / "wan")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Deployed:
    return load_tiny(tiny_folder)


@pytest.fixture(scope="session")
def wan_t2v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ordinary Wan2.1 T2V layout: 16 channels, 8x VAE, no stillmotion.json."""
    return save_tiny_wan(tmp_path_factory.mktemp("t2v") / "wan-t2v", task="t2v", vae_scale=8, card=None)


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A smooth 64x64 picture of three colour ramps."""
    ramp = np.linspace(0, 255, 64)
    pixels = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 90.0)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def picture_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def request_64() -> VideoRequest:
    return VideoRequest(prompt="slow zoom in", width=64, height=64, num_frames=9, fps=16, seed=7)
