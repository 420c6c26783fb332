"""VIDEO_BATCH: renders alike that wait are denoised as one, over HTTP, each with its own progress, cancel and end."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.support.video_process import MODULE, VideoProcess, running

pytestmark = pytest.mark.slow

BODY: dict[str, Any] = {"prompt": "zoom in", "width": 64, "height": 64, "num_frames": 5, "fps": 16, "steps": 3}
LONG = BODY | {"steps": 50, "num_frames": 33, "seed": 0}
SCRIPTED = (str(Path(__file__).resolve().parents[1] / "support" / "scripted_video_service.py"),)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan(tmp_path_factory.mktemp("batching") / "wan")


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    data = tmp_path_factory.mktemp("batch") / "data"
    with running(MODULE, data, model, VIDEO_BATCH="3") as started:
        yield started.wait_ready()


def put(service: VideoProcess, name: str, body: dict[str, Any], **changes: Any) -> None:
    answer = service.http.put(f"/v1/videos/{name}", json=body | changes)
    assert answer.status_code == 202, answer.text


def status(service: VideoProcess, name: str) -> dict[str, Any]:
    return service.http.get(f"/v1/videos/{name}").json()


def result(service: VideoProcess, name: str) -> dict[str, Any]:
    ended = service.wait_ended(name)
    assert ended["state"] == "completed", ended
    return ended["result"]


def frames(service: VideoProcess, name: str) -> np.ndarray:
    with av.open(io.BytesIO(service.http.get(f"/v1/videos/{name}/content").content), mode="r") as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]).astype(int)


def behind_another(service: VideoProcess, name: str, *bodies: dict[str, Any]) -> list[str]:
    """Put these while another render runs, and then let that one go."""
    put(service, f"{name}-first", LONG)
    service.until(lambda: status(service, f"{name}-first")["state"] == "running")
    names = [f"{name}-{index}" for index in range(len(bodies))]
    for own, body in zip(names, bodies, strict=True):
        put(service, own, body)
    service.http.delete(f"/v1/videos/{name}-first")
    return names


def test_renders_alike_go_as_one_and_are_what_they_are_alone(service: VideoProcess) -> None:
    """The one between them, of another length, goes by itself; nothing is tried before one was measured alone."""
    alone = [BODY | {"seed": seed} for seed in (1, 2)]
    for index, body in enumerate(alone):
        put(service, f"alone-{index}", body)
        assert result(service, f"alone-{index}")["batch"] == 1
    together = behind_another(service, "three", alone[0], BODY | {"seed": 3, "num_frames": 9}, alone[1])
    assert [result(service, name)["batch"] for name in together] == [2, 1, 2]
    for name, index in ((together[0], 0), (together[2], 1)):
        assert np.abs(frames(service, name) - frames(service, f"alone-{index}")).max() <= 2
    assert np.abs(frames(service, together[0]) - frames(service, together[2])).max() > 8


@pytest.mark.timeout(240)
def test_one_that_is_canceled_leaves_the_others_to_go_on(service: VideoProcess) -> None:
    body = LONG | {"num_frames": 29}
    put(service, "measured", body, steps=2)
    result(service, "measured")
    names = behind_another(service, "leaving", *(body | {"seed": seed} for seed in (1, 2)))
    service.until(lambda: all(status(service, name)["step"] > 1 for name in names))
    assert service.http.delete(f"/v1/videos/{names[0]}").status_code == 202
    left = service.wait_ended(names[0])
    assert left["state"] == "canceled"
    other = status(service, names[1])
    assert other["state"] == "running", "canceled at the next step, not at the end"
    assert result(service, names[1])["batch"] == 2


def test_a_killed_worker_costs_no_render_of_a_batch(service: VideoProcess) -> None:
    body = LONG | {"num_frames": 25}
    put(service, "before-death", body, steps=2)
    result(service, "before-death")
    names = behind_another(service, "dying", *(body | {"seed": seed, "steps": 8} for seed in (1, 2)))
    service.until(lambda: all(status(service, name)["state"] == "running" for name in names))
    service.worker().kill()
    assert [result(service, name)["batch"] for name in names] == [1, 1], "one by one: whose fault was it?"


def test_one_that_fails_fails_alone(model: Path, tmp_path: Path) -> None:
    """The worker is scripted: one render of the batch breaks, and then that one alone."""
    with running(SCRIPTED, tmp_path / "data", model, VIDEO_BATCH="3", VIDEO_BATCH_WAIT_S="0.2") as service:
        service.wait_ready()
        put(service, "alone", BODY | {"seed": 0})
        result(service, "alone")
        put(service, "slow", BODY | {"seed": 0, "prompt": "slow", "steps": 10})
        service.until(lambda: status(service, "slow")["state"] == "running")
        for name, prompt in (("a", "a kite"), ("b", "break"), ("c", "a boat")):
            put(service, name, BODY | {"seed": 1, "prompt": prompt})
        assert service.wait_ended("b")["error"]["code"] == "render_failed"
        assert [result(service, name)["batch"] for name in ("a", "c")] == [1, 1]
