"""VIDEO_GPUS=2 in the whole video service as it is run, on two CPU processes: its frames, and who ends with whom.

What the two compute is compared step by step in `tests/unit/video_service/worker/test_peers.py`.
"""

import io
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from contracts.videos import VideoRequest
from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.support.video_process import MODULE, VideoProcess, running
from video_service.model import find_model, load_model
from video_service.render.generate import generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings

pytestmark = pytest.mark.slow

BODY: dict[str, Any] = {"prompt": "zoom in", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1,
                        "steps": 3, "guidance_scale": 3.0, "negative_prompt": "blurred"}
LONG = BODY | {"width": 128, "height": 128, "num_frames": 33, "steps": 50}
"""Some seconds of denoising, in short steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("model") / "wan")


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    with running(MODULE, tmp_path_factory.mktemp("service") / "data", model, VIDEO_GPUS="2") as service:
        yield service.wait_ready()


def frames_of(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4), mode="r") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


def render(service: VideoProcess, name: str) -> dict[str, Any]:
    assert service.http.put(f"/v1/videos/{name}", json=BODY).status_code == 202
    return service.wait_ended(name)


def peer_of(service: VideoProcess) -> psutil.Process:
    (peer,) = service.worker().children()
    return peer


def test_its_frames_are_those_of_one_process(service: VideoProcess, model: Path, tmp_path: Path) -> None:
    status = render(service, "two")
    assert status["state"] == "completed", status["error"]
    assert "steps over 2 devices" in status["result"]["engine_reason"]
    found = frames_of(service.http.get("/v1/videos/two/content").content)
    settings = VideoSettings(model=str(model), device="cpu", dtype="float32")
    request = VideoRequest.model_validate(BODY)
    generate(load_model(find_model(settings), settings), request, tmp_path / "one.mp4", silent)
    assert np.abs(found - frames_of((tmp_path / "one.mp4").read_bytes())).mean() < 0.5


def test_a_peer_that_dies_costs_the_render_at_work_and_the_next_worker_has_another(service: VideoProcess) -> None:
    worker, peer = service.worker(), peer_of(service)
    service.http.put("/v1/videos/lost", json=LONG)
    service.until(lambda: service.http.get("/v1/videos/lost").json()["step"] >= 2)
    peer.kill()
    ended = service.wait_ended("lost")
    assert (ended["state"], ended["error"]["code"]) == ("failed", "worker_died")
    service.until(lambda: not worker.is_running())
    service.wait_ready()
    assert render(service, "again")["state"] == "completed"


def test_nothing_is_left_of_a_worker_that_is_killed_or_a_service_that_is_interrupted(service: VideoProcess) -> None:
    """Not of one that is only starting either."""
    worker, peer = service.worker(), peer_of(service)
    worker.kill()
    service.until(lambda: not peer.is_running())
    processes = service.until(lambda: psutil.Process(service.process.pid).children(recursive=True))
    service.process.send_signal(signal.SIGINT)
    service.process.wait(30)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
