"""The embedded checkpoint on ONNX Runtime alone: its whole video is torch's.

Of the full form: half a minute of exports of the graphs that `test_serving.py` exports of a tiny checkpoint.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from contracts.videos import VideoRequest
from engines.build.build import Order, build, verify
from engines.run.onnxrt import OnnxSession
from engines.store.manifest import Manifest
from engines.store.store import EngineStore
from tests.unit.engines.conftest import open_shelf
from video_service.engines.clips import ClipGraphs
from video_service.engines.shape import ClipShape
from video_service.families.wan.files import WAN_GRAPHS, WAN_PARTS
from video_service.layers.wan.codec import TorchCodec
from video_service.layers.wan.engines import EngineCodec
from video_service.layers.wan.lean_vae import make_lean
from video_service.model import ModelSource, find_model, load_model
from video_service.render.generate import generate
from video_service.settings import VideoSettings
from video_service.weights.parts import read_parts

pytestmark = [pytest.mark.slow, pytest.mark.full]

WIDTH, HEIGHT, FRAMES = 128, 128, 9


def picture() -> bytes:
    """A bright disc over a ramp, as a PNG."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = (rows - 60) ** 2 + (columns - 90) ** 2 < 900
    pixels = np.stack([columns, rows, np.full_like(rows, 120)], axis=-1) + 90 * disc[..., None]
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def frames_of(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(float)


def quiet(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The embedded checkpoint's, for one clip."""

    settings: VideoSettings
    source: ModelSource
    store: EngineStore
    manifests: list[Manifest]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    settings = VideoSettings(
        model="embedded", device="cpu", dtype="float32", threads=1, engine="torch",
        data_dir=tmp_path_factory.mktemp("embedded"),
    )
    source = find_model(settings)
    shape = ClipShape(width=WIDTH, height=HEIGHT, num_frames=FRAMES, text_tokens=source.info.text_tokens)
    store = EngineStore(settings.engine_store_dir)
    order = Order(shape=shape, target="onnx", precision="fp32", capabilities=(None,))
    built = build(ClipGraphs(source), store, order, quiet)
    manifests = verify(ClipGraphs(source), store, built, quiet)
    return Engines(settings=settings, source=source, store=store, manifests=manifests)


def test_every_graph_of_the_embedded_checkpoint_computes_what_torch_computes(engines: Engines) -> None:
    found = {manifest.recipe.graph: manifest for manifest in engines.manifests}
    assert found.keys() == set(WAN_GRAPHS)
    for name, manifest in found.items():
        assert manifest.check is not None, name
        assert manifest.state == "verified", name
        assert manifest.check.relative_l2 < 1e-4, name


def test_its_decoder_graphs_carry_history_as_torch_does(engines: Engines) -> None:
    sessions = {
        manifest.recipe.graph: OnnxSession(engines.store.folder(manifest.recipe) / "graph.onnx", threads=1)
        for manifest in engines.manifests if manifest.recipe.graph.startswith("vae")
    }
    found = EngineCodec(sessions["vae_encoder"], sessions["vae_decoder_first"], sessions["vae_decoder_later"])
    true = TorchCodec(make_lean(read_parts(engines.source.files, WAN_PARTS, torch.float32)["vae"]))
    still = torch.rand(1, 3, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.inference_mode():
        latents = true.encode_still(still, FRAMES)
        assert relative(found.encode_still(still, FRAMES), latents) < 1e-4
        frames = torch.cat(list(true.decode(latents, 1)), dim=2)
        assert frames.shape[2] == FRAMES
        assert relative(torch.cat(list(found.decode(latents, 1)), dim=2), frames) < 1e-4


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    assert found.shape == true.shape
    return float((found.double() - true.double()).norm() / true.double().norm())


def test_the_embedded_video_on_onnx_graphs_equals_torchs_within_40_db(engines: Engines, tmp_path: Path) -> None:
    request = VideoRequest(
        prompt="slow zoom in", image=picture(), width=WIDTH, height=HEIGHT, num_frames=FRAMES, fps=16, seed=7, steps=2,
    )
    torch_model = load_model(engines.source, engines.settings)
    true = generate(torch_model, request, tmp_path / "torch.mp4", quiet)
    forced = engines.settings.model_copy(update={"engine": "onnx"})
    model = open_shelf(forced).model_for(request)
    found = generate(model, request, tmp_path / "onnx.mp4", quiet)
    assert (true.engine, found.engine) == ("torch-cpu", "onnx-cpu")
    expected, seen = frames_of(tmp_path / "torch.mp4"), frames_of(tmp_path / "onnx.mp4")
    assert expected.shape == seen.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert 10 * np.log10(255**2 / max(np.mean((expected - seen) ** 2), 1e-9)) > 40
    # Equality of nothing with nothing would pass too.
    assert expected.std() > 20
