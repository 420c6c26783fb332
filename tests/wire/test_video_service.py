"""The whole video service as it is run, `python -m video_service`, rendering with a tiny real Wan checkpoint."""

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from contracts.videos import VideoRequest
from gateway.services.clients import multipart
from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.support.video_process import MODULE, VideoProcess, running

pytestmark = pytest.mark.slow


def body(*, steps: int = 2, seed: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "prompt": "zoom in", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": seed, "steps": steps,
        "sampler": "euler", **more,
    }


def long_body(**more: Any) -> dict[str, Any]:
    """Some seconds of denoising, in short steps."""
    return body(steps=50, **more) | {"width": 128, "height": 128, "num_frames": 33}


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), "orange").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("model") / "wan")


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    with running(MODULE, tmp_path_factory.mktemp("service") / "data", model) as service:
        yield service.wait_ready()


@pytest.mark.parametrize("image", [None, picture()], ids=["words", "picture"])
def test_words_or_a_picture_become_the_video_that_the_result_describes(service: VideoProcess, image: bytes | None):
    render_id = "words" if image is None else "picture"
    asked = VideoRequest.model_validate(body() | {"image": image})
    assert service.http.put(f"/v1/videos/{render_id}", **multipart(asked)).status_code == 202
    status = service.wait_ended(render_id)
    result = status["result"]
    assert status["state"] == "completed", status["error"]
    content = service.http.get(f"/v1/videos/{render_id}/content").content
    assert (len(content), hashlib.sha256(content).hexdigest()) == (result["num_bytes"], result["sha256"])
    assert {"text", "denoise", "decode", "total"} <= result["timings"].keys()
    with av.open(io.BytesIO(content), mode="r") as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(64, 64)] * 9


def test_a_running_render_stops_within_a_denoising_step(service: VideoProcess):
    worker = service.worker().pid
    service.http.put("/v1/videos/cancel", json=long_body())
    service.until(lambda: service.http.get("/v1/videos/cancel").json()["step"] >= 3)
    asked = service.http.delete("/v1/videos/cancel")
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    ended = service.wait_ended("cancel")
    assert ended["state"] == "canceled"
    assert ended["step"] <= asked.json()["step"] + 1  # the step under way may still end
    assert service.worker().pid == worker


@pytest.mark.full  # tests/wire/test_video_http.py has it of one that lacks a file
def test_weights_that_cannot_be_loaded_are_named_and_the_service_lives(model: Path, tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    weights = next((damaged / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with running(MODULE, tmp_path / "data", damaged) as service:
        service.wait_alive()
        service.until(lambda: service.http.get("/readyz").json()["stuck"], timeout_s=60)
        answer = service.http.get("/readyz")
        assert answer.status_code == 503
        assert "the weights of damaged" in answer.json()["reasons"][0]
        assert service.http.get("/livez").status_code == 200
