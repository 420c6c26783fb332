"""VIDEO_GPUS=2 in the whole video service as it is run, on two CPU processes: its frames, and who ends with whom.

What the two compute is compared step by step in `tests/unit/video_service/worker/test_peers.py`.
"""

import io
import signal
import time
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
DEADLINE_S = 6.0
"""Of the two for each other."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("model") / "wan")


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    limits = {"VIDEO_GPUS": "2", "VIDEO_GPUS_TIMEOUT_S": str(DEADLINE_S)}
    with running(MODULE, tmp_path_factory.mktemp("service") / "data", model, **limits) as service:
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


def begin(service: VideoProcess, name: str) -> None:
    """A long render, until it is in the middle of its steps."""
    service.http.put(f"/v1/videos/{name}", json=LONG)
    service.until(lambda: service.http.get(f"/v1/videos/{name}").json()["step"] >= 2)


def test_a_canceled_render_ends_at_its_next_step_and_both_processes_go_on(service: VideoProcess) -> None:
    worker, peer = service.worker(), peer_of(service)
    begin(service, "unwanted")
    assert service.http.delete("/v1/videos/unwanted").status_code == 202
    ended = service.wait_ended("unwanted")
    assert ended["state"] == "canceled"
    assert ended["step"] < 40
    assert render(service, "wanted")["state"] == "completed"
    assert (service.worker(), peer_of(service)) == (worker, peer)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_peer_that_hangs_or_dies_costs_the_render_at_work_and_the_next_worker_has_another(
    service: VideoProcess, how: signal.Signals
) -> None:
    """Within the deadline. The gateway puts a render whose worker died once more."""
    service.wait_ready()
    worker, peer = service.worker(), peer_of(service)
    begin(service, how.name)
    peer.send_signal(how)
    began_s = time.monotonic()
    ended = service.wait_ended(how.name)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "worker_died")
    assert time.monotonic() - began_s < DEADLINE_S + 10
    service.until(lambda: not worker.is_running() and not peer.is_running(), timeout_s=10)


def test_nothing_is_left_of_a_worker_that_is_killed_while_it_starts(service: VideoProcess) -> None:
    (worker,) = service.until(psutil.Process(service.process.pid).children)
    (peer,) = service.until(worker.children)
    worker.kill()
    service.until(lambda: not worker.is_running() and not peer.is_running())


def test_after_all_that_renders_go_on_until_a_signal_in_the_middle_of_one_leaves_nothing(service: VideoProcess) -> None:
    service.wait_ready()
    assert render(service, "again")["state"] == "completed"
    begin(service, "last")
    processes = psutil.Process(service.process.pid).children(recursive=True)
    assert len(processes) == 2, "a worker and its peer"
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(30)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
