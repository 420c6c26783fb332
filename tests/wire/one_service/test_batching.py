"""VIDEO_BATCH: renders alike that wait are denoised as one, over HTTP, each with its own progress, cancel and end."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.support.video_process import VideoProcess, running

pytestmark = pytest.mark.slow

BODY: dict[str, Any] = {"prompt": "zoom in", "width": 64, "height": 64, "num_frames": 5, "fps": 16, "steps": 3}
LONG = BODY | {"steps": 50, "num_frames": 33, "seed": 0}
SCRIPTED = (str(Path(__file__).resolve().parents[2] / "support" / "scripted_video_service.py"),)


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
    body = LONG | {"num_frames": 29, "steps": 25}
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


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    """Its worker does as the prompt says, and has rendered one such clip alone."""
    folder = tmp_path_factory.mktemp("scripted")
    with running(SCRIPTED, folder / "data", folder / "none", VIDEO_BATCH="3", VIDEO_BATCH_WAIT_S="0.2") as started:
        put(started.wait_ready(), "alone", BODY | {"seed": 0})
        result(started, "alone")
        yield started


def behind_a_slow_one(service: VideoProcess, first: str, prompts: dict[str, str]) -> None:
    put(service, first, BODY | {"seed": 0, "prompt": "slow", "steps": 10})
    service.until(lambda: status(service, first)["state"] == "running")
    for name, prompt in prompts.items():
        put(service, name, BODY | {"seed": 1, "prompt": prompt})


def test_a_killed_worker_costs_no_render_of_a_batch(scripted: VideoProcess) -> None:
    behind_a_slow_one(scripted, "before-death", {"d": "slow", "e": "slow"})
    scripted.until(lambda: all(status(scripted, name)["state"] == "running" for name in "de"))
    scripted.worker().kill()
    assert [result(scripted, name)["batch"] for name in "de"] == [1, 1], "one by one: whose fault was it?"


def test_one_that_fails_fails_alone(scripted: VideoProcess) -> None:
    """One render of the batch breaks, and then that one alone."""
    behind_a_slow_one(scripted, "before-fault", {"a": "a kite", "b": "break", "c": "a boat"})
    assert scripted.wait_ended("b")["error"]["code"] == "render_failed"
    assert [result(scripted, name)["batch"] for name in "ac"] == [1, 1]
