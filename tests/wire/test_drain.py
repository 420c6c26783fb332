"""A video service that is told to end with time to drain: the render at work is finished and fetched, the rest goes on
elsewhere."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import HTTP, KeptProcess, scripted_video_process, until

pytestmark = pytest.mark.slow

BODY = {"width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1, "sampler": "euler"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name alone: the scripted worker reads no checkpoint."""
    return tmp_path_factory.mktemp("model") / "wan"


@pytest.fixture
def service(tmp_path: Path, model: Path, request: pytest.FixtureRequest) -> Iterator[KeptProcess]:
    process = scripted_video_process(tmp_path, model, VIDEO_DRAIN_S=str(getattr(request, "param", 60)))
    process.start()
    try:
        process.wait_ready()
        yield process
    finally:
        process.kill()


def put(service: KeptProcess, name: str, *, steps: int) -> int:
    body = BODY | {"prompt": f"a slow {name}", "steps": steps}
    return HTTP.put(f"{service.url}/v1/videos/{name}", json=body).status_code


def state(service: KeptProcess, name: str) -> str:
    return HTTP.get(f"{service.url}/v1/videos/{name}").json().get("state", "unknown")


def tell_to_end(service: KeptProcess) -> None:
    assert service._process is not None
    service._process.send_signal(signal.SIGTERM)
    until(lambda: not service.ready(), 10)


def test_what_runs_is_finished_and_fetched_and_what_waits_is_let_go(service: KeptProcess) -> None:
    assert [put(service, name, steps=12) for name in ("running", "waiting")] == [202, 202]
    until(lambda: state(service, "running") == "running", 10)
    tell_to_end(service)
    assert [state(service, name) for name in ("running", "waiting")] == ["running", "unknown"]
    assert put(service, "running", steps=12) == 200, "whoever asks for it again still finds it"
    assert put(service, "new", steps=2) == 503
    assert "told to end" in HTTP.get(f"{service.url}/readyz").json()["reasons"][0]
    until(lambda: state(service, "running") == "completed", 20)
    assert HTTP.get(f"{service.url}/v1/videos/running/content").content == b"a slow running 1" * 100
    assert service.lives(), "somebody may still want it"
    assert HTTP.delete(f"{service.url}/v1/videos/running").status_code == 204
    assert service._process is not None
    assert service._process.wait(10) == 0


@pytest.mark.parametrize("service", [1.0], indirect=True)
def test_a_render_that_takes_longer_than_the_drain_is_given_up(service: KeptProcess) -> None:
    put(service, "long", steps=50)
    until(lambda: state(service, "long") == "running", 10)
    assert service._process is not None
    service._process.send_signal(signal.SIGTERM)
    service._process.wait(15)
