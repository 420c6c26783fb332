"""The embedded checkpoint on ONNX Runtime alone: its whole video is torch's."""

import base64
import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from contracts.videos import VideoRequest
from video_service.catalog import find_model
from video_service.engine_store.shape import ClipShape
from video_service.engine_store.store import EngineStore
from video_service.engines.build import Order, build, verify
from video_service.engines.shelf import EngineShelf
from video_service.generate import generate
from video_service.load import load_model
from video_service.settings import VideoSettings

WIDTH, HEIGHT, FRAMES = 160, 128, 9


def picture() -> str:
    """A bright disc over a ramp, as a PNG in base64."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = (rows - 60) ** 2 + (columns - 90) ** 2 < 900
    pixels = np.stack([columns, rows, np.full_like(rows, 120)], axis=-1) + 90 * disc[..., None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def frames_of(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def quiet(*_: object) -> None:
    pass


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_embedded_video_on_onnx_graphs_equals_torchs_within_40_db(tmp_path: Path) -> None:
    settings = VideoSettings(
        model="embedded", device="cpu", dtype="float32", threads=2, data_dir=tmp_path, engine="torch"
    )
    source = find_model(settings)
    shape = ClipShape(
        width=WIDTH, height=HEIGHT, num_frames=FRAMES, text_tokens=source.max_sequence_length
    )
    store = EngineStore(settings.engine_store_dir)
    built = build(source, store, Order(shape=shape, target="onnx", precision="fp32", capabilities=(None,)), quiet)
    assert {found.state for found in verify(source, store, built, quiet)} == {"verified"}
    request = VideoRequest(
        prompt="slow zoom in", image=picture(), width=WIDTH, height=HEIGHT, num_frames=FRAMES, fps=16, seed=7, steps=3,
    )
    torch_model = load_model(source, settings)
    true = generate(torch_model, request, tmp_path / "torch.mp4", quiet)
    forced = settings.model_copy(update={"engine": "onnx"})
    model = EngineShelf(load_model(find_model(forced), forced), forced).model_for(request)
    found = generate(model, request, tmp_path / "onnx.mp4", quiet)
    assert (true.engine, found.engine) == ("torch-cpu", "onnx-cpu")
    expected, seen = frames_of(tmp_path / "torch.mp4"), frames_of(tmp_path / "onnx.mp4")
    assert expected.shape == seen.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert 10 * np.log10(255**2 / max(np.mean((expected - seen) ** 2), 1e-9)) > 40
    # Equality of nothing with nothing would pass too.
    assert expected.std() > 20
