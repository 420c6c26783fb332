"""Three families in one service with room for two: renders of each, some canceled, and a killed worker among them.

Each render ends truthfully, its frames are those it has alone, and what was held is held no more afterwards.
"""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.checkpoints.tiny_families import save_tiny_family
from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.support.video_process import MODULE, VideoProcess, running
from video_service.weights.memory import weight_bytes

pytestmark = pytest.mark.slow

PARTS = ("transformer", "transformer_2", "unet", "vae", "text_encoder", "image_encoder")
WORDS: dict[str, Any] = {"prompt": "zoom in", "width": 64, "height": 64, "fps": 16, "steps": 2, "num_frames": 5}
MODELS = ("tiny-wan", "experts", "flow")
Kinds = list[dict[str, Any]]
SLACK_BYTES = 96 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    folder = tmp_path_factory.mktemp("storm")
    paths = [
        save_tiny_wan(folder / "wan"), save_tiny_family(folder / "experts", "wan2.2-experts-t2v", shallow=True),
        save_tiny_family(folder / "flow", "anyflow", shallow=True),
    ]
    sizes = sorted(weight_bytes(path, PARTS, 4) or 0 for path in paths)
    with running(
        MODULE, folder / "data", paths[0], VIDEO_MODELS=",".join(map(str, paths)), VIDEO_MAX_QUEUE="64",
        VIDEO_MEMORY_BUDGET=str(int(sum(sizes[1:]) * 1.05)), VIDEO_MAX_FINISHED="64",
    ) as started:
        yield started.wait_ready()


def put(service: VideoProcess, name: str, kind: dict[str, Any]) -> None:
    answer = service.http.put(f"/v1/videos/{name}", json=WORDS | kind)
    assert answer.status_code == 202, answer.text


def alone(service: VideoProcess, kinds: Kinds, round_name: str) -> list[str]:
    """The SHA-256 of each kind's video, each rendered while nothing else was there."""
    videos = []
    for index, kind in enumerate(kinds):
        name = f"{round_name}-{index}"
        put(service, name, kind)
        ended = service.wait_ended(name)
        assert ended["state"] == "completed", ended
        videos.append(ended["result"]["sha256"])
        assert service.http.delete(f"/v1/videos/{name}").status_code == 204
    return videos


def held(service: VideoProcess) -> int:
    return psutil.Process(service.worker().pid).memory_info().rss


@pytest.mark.parametrize(("renders", "seeds"), [(12, [1]), pytest.param(60, [1, 2], marks=pytest.mark.full)])
def test_each_ends_truthfully_with_its_own_frames_and_memory_comes_back(
    service: VideoProcess, renders: int, seeds: list[int]
) -> None:
    kinds: Kinds = [{"model": model, "seed": seed} for model in MODELS for seed in seeds]
    chance, expected = random.Random(renders), alone(service, kinds, "before")
    base = held(service)
    assert len(set(expected)) == len(kinds)
    names = {f"storm{renders}-{index}": chance.randrange(len(kinds)) for index in range(renders)}
    canceled, killed = set(), False
    for index, (name, kind) in enumerate(names.items()):
        put(service, name, kinds[kind])
        if chance.random() < 0.2:
            other = chance.choice(list(names)[: index + 1])
            if service.http.delete(f"/v1/videos/{other}").status_code in (200, 202):
                canceled.add(other)
        if index >= renders // 2 and not killed:
            killed = kill_in_mid_render(service, set(names))
    assert killed
    ended = {name: service.wait_ended(name) for name in names if known(service, name)}
    removed = names.keys() - ended.keys()
    for name, status in ended.items():
        if status["state"] == "completed":
            assert status["result"]["sha256"] == expected[names[name]], name
        elif status["state"] == "canceled":
            assert name in canceled
        else:
            assert status["error"]["code"] == "worker_died", status
    states = [status["state"] for status in ended.values()]
    assert states.count("failed") <= 1, "the one that it rendered"
    assert states.count("completed") >= renders // 2
    assert all(service.http.get(f"/v1/videos/{name}").status_code == 404 for name in removed)

    service.until(lambda: service.http.get("/readyz").status_code == 200)
    assert alone(service, kinds, "after") == expected
    listed = service.http.get("/v1/models").json()["data"]
    loaded = [model for model in listed if model["state"] == "loaded"]
    assert len(loaded) == 2
    assert held(service) < base + SLACK_BYTES
    assert psutil.Process(service.process.pid).children() == [service.worker()], "no worker is left over"
    for name in ended:
        service.http.delete(f"/v1/videos/{name}")
    service.until(lambda: not rendered_files(service))


def known(service: VideoProcess, name: str) -> bool:
    """Whether the render is there: one that was deleted once it had ended is not."""
    return service.http.get(f"/v1/videos/{name}").status_code == 200


def kill_in_mid_render(service: VideoProcess, names: set[str]) -> bool:
    """Kill the worker while it renders one of these; whether there was such a moment."""
    for name in names:
        answer = service.http.get(f"/v1/videos/{name}")
        if answer.status_code == 200 and answer.json()["state"] == "running":
            os.kill(service.worker().pid, signal.SIGKILL)
            return True
    return False


def rendered_files(service: VideoProcess) -> list[Path]:
    folder = Path(service.environment["STILLMOTION_DATA"]) / "video"
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
