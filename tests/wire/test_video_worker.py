"""Laws of the supervised worker, seen from a client of the real service process.

The worker process is real too; only its engine is scripted (`scripted_video_worker.py`), for a model does not
crash, hang or run out of memory on demand. `test_several_models.py` has the real engine.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from contracts.videos import RenderStatus
from tests.support.video_process import VideoProcess, running

pytestmark = pytest.mark.slow

SCRIPTED = (str(Path(__file__).parents[1] / "support" / "scripted_video_service.py"),)


def body(prompt: str, steps: int = 4) -> dict[str, Any]:
    return {
        "prompt": prompt, "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1, "steps": steps,
        "sampler": "euler",
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A name alone: the scripted worker reads no checkpoint."""
    return tmp_path_factory.mktemp("model") / "wan"


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoProcess]:
    """One service for all tests that leave it usable."""
    data = tmp_path_factory.mktemp("service") / "data"
    limits = {"VIDEO_RENDER_TIMEOUT_S": "3", "VIDEO_CANCEL_GRACE_S": "0.5", "VIDEO_MAX_QUEUE": "3"}
    with running(SCRIPTED, data, model, **limits) as service:
        yield service.wait_ready()


@pytest.fixture
def service(shared: VideoProcess) -> VideoProcess:
    return shared.wait_ready()


def put(service: VideoProcess, render_id: str, prompt: str, steps: int = 4) -> httpx.Response:
    return service.http.put(f"/v1/videos/{render_id}", json=body(prompt, steps))


def wait_step(service: VideoProcess, render_id: str, step: int = 1) -> None:
    service.until(lambda: service.http.get(f"/v1/videos/{render_id}").json()["step"] >= step)


def follow(
    service: VideoProcess, render_id: str, headers: dict[str, str] | None = None
) -> list[tuple[int, RenderStatus]]:
    """Every event until the stream ends by itself."""
    events: list[tuple[int, RenderStatus]] = []
    with service.http.stream("GET", f"/v1/videos/{render_id}/events", headers=headers) as stream:
        status: RenderStatus | None = None
        for line in stream.iter_lines():
            if line.startswith("data: "):
                status = RenderStatus.model_validate_json(line[6:])
            elif line.startswith("id: ") and status is not None:
                events.append((int(line[4:]), status))
    return events


def test_events_tell_every_step_in_order_and_end_with_the_render(service: VideoProcess):
    put(service, "ahead", "go", steps=10)
    put(service, "events", "go", steps=10)
    events = follow(service, "events")
    statuses = [status for _, status in events]
    assert [event_id for event_id, _ in events] == sorted({event_id for event_id, _ in events})
    assert list(dict.fromkeys(status.state for status in statuses)) == ["queued", "running", "completed"]
    assert statuses[0].queue_position == 1
    assert [status.step for status in statuses if status.stage == "denoise"] == list(range(11))
    progress = [status.progress for status in statuses]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert statuses[-1].result is not None
    assert all(status.eta_s is not None for status in statuses if 1 <= status.step < 10)
    seen_id = events[len(events) // 2][0]
    assert follow(service, "events", {"Last-Event-ID": str(seen_id)}) == events[len(events) // 2 + 1:]


def test_content_comes_whole_or_in_ranges_under_one_etag(service: VideoProcess):
    put(service, "content", "go")
    result = service.wait_ended("content")["result"]
    whole = service.http.get("/v1/videos/content/content")
    assert (len(whole.content), whole.headers["etag"]) == (result["num_bytes"], f'"{result["sha256"]}"')
    assert whole.headers["content-type"] == "video/mp4"
    part = service.http.get("/v1/videos/content/content", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{result['num_bytes']}"
    stale = {"Range": "bytes=10-19", "If-Range": '"another"'}
    assert service.http.get("/v1/videos/content/content", headers=stale).content == whole.content
    head = service.http.head("/v1/videos/content/content")
    assert (head.headers["content-length"], head.content) == (str(result["num_bytes"]), b"")
    known = {"If-None-Match": whole.headers["etag"]}
    assert service.http.get("/v1/videos/content/content", headers=known).status_code == 304
    beyond = {"Range": f"bytes={result['num_bytes']}-"}
    assert service.http.get("/v1/videos/content/content", headers=beyond).status_code == 416
    assert service.http.delete("/v1/videos/content").status_code == 204
    assert service.http.get("/v1/videos/content/content").status_code == 404


def test_a_running_render_is_canceled_within_a_step_by_the_same_worker(service: VideoProcess):
    worker = service.worker().pid
    put(service, "cancel", "slow", steps=20)
    wait_step(service, "cancel", 2)
    asked = service.http.delete("/v1/videos/cancel")
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    ended = service.wait_ended("cancel")
    assert ended["state"] == "canceled"
    assert ended["step"] <= asked.json()["step"] + 1  # the step under way may still end
    assert service.worker().pid == worker
    assert put(service, "after-cancel", "go").status_code == 202
    assert service.wait_ended("after-cancel")["state"] == "completed"


def test_a_killed_worker_fails_its_render_by_name_and_the_next_one_completes(service: VideoProcess):
    put(service, "killed", "go", steps=50)
    put(service, "survivor", "go")
    wait_step(service, "killed")
    killed_at = time.monotonic()
    worker = service.worker()
    worker.kill()
    error = service.wait_ended("killed")["error"]
    assert error["code"] == "worker_died"
    assert "SIGKILL" in error["detail"]
    service.wait_ready()
    assert time.monotonic() - killed_at < 60
    assert service.wait_ended("survivor")["state"] == "completed"
    assert service.worker().pid != worker.pid


def test_a_worker_killed_while_idle_is_replaced(service: VideoProcess):
    worker = service.worker()
    worker.kill()
    service.until(lambda: service.http.get("/readyz").status_code == 503)
    service.wait_ready()
    put(service, "after-idle", "go")
    assert service.wait_ended("after-idle")["state"] == "completed"


def test_running_out_of_memory_fails_that_render_and_costs_no_worker(service: VideoProcess):
    worker = service.worker().pid
    put(service, "exhaust", "exhaust")
    assert service.wait_ended("exhaust")["error"]["code"] == "out_of_memory"
    put(service, "broken", "break")
    error = service.wait_ended("broken")["error"]
    assert (error["code"], "KeyError" in error["detail"]) == ("render_failed", True)
    put(service, "after-oom", "go")
    assert service.wait_ended("after-oom")["state"] == "completed"
    assert service.worker().pid == worker


def test_a_hanging_render_is_ended_by_force_when_canceled(service: VideoProcess):
    put(service, "hang", "hang")
    wait_step(service, "hang")
    service.http.delete("/v1/videos/hang")
    assert service.http.put("/v1/videos/hang", json=body("hang")).json()["code"] == "render_stopping"
    assert service.wait_ended("hang")["state"] == "canceled"
    service.wait_ready()


def test_a_late_render_is_stopped_by_asking_first_and_by_force_when_it_hangs(service: VideoProcess):
    worker = service.worker().pid
    put(service, "late-slow", "slow", steps=50)
    error = service.wait_ended("late-slow")["error"]
    assert error["code"] == "deadline_exceeded"
    assert service.worker().pid == worker
    put(service, "late-hang", "hang")
    assert service.wait_ended("late-hang")["error"]["code"] == "deadline_exceeded"
    service.wait_ready()
    assert service.worker().pid != worker


def test_ctrl_c_ends_everything_soon_without_a_traceback(model: Path, tmp_path: Path):
    with running(SCRIPTED, tmp_path / "data", model) as service:
        worker = service.wait_ready().worker()
        put(service, "running", "go", steps=50)
        wait_step(service, "running")
        with service.http.stream("GET", "/v1/videos/running/events") as events:
            lines = events.iter_lines()
            next(lines)
            asked_at = time.monotonic()
            service.process.send_signal(signal.SIGINT)
            for _ in lines:
                pass
        assert service.process.wait(60) == 0
        assert time.monotonic() - asked_at < 30
        service.until(lambda: not worker.is_running())
        assert "Traceback" not in service.log


def test_a_killed_service_takes_its_worker_along_and_its_renders_are_put_again(model: Path, tmp_path: Path):
    with running(SCRIPTED, tmp_path / "data", model) as service:
        service.wait_ready()
        put(service, "finished", "go")
        service.wait_ended("finished")
        put(service, "running", "go", steps=50)
        put(service, "queued", "go")
        wait_step(service, "running")
        family = psutil.Process(service.process.pid).children(recursive=True)
        assert service.worker() in family
        service.process.kill()
        service.process.wait(30)
        psutil.wait_procs(family, timeout=30)
        assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    with running(SCRIPTED, tmp_path / "data", model) as service:
        service.wait_ready()
        assert [path.name for path in (tmp_path / "data" / "video").iterdir()] == [".lock"]
        for name in ("finished", "running", "queued"):
            assert service.http.get(f"/v1/videos/{name}").json()["code"] == "not_found"
            assert put(service, name, "go").status_code == 202
            assert service.wait_ended(name)["state"] == "completed"


def test_a_broken_device_costs_its_render_and_its_process_and_the_next_one_works(service: VideoProcess):
    worker = service.worker()
    put(service, "poisoned", "poison")
    put(service, "after-poison", "go")
    assert service.wait_ended("poisoned")["error"]["code"] == "render_failed"
    assert service.wait_ended("after-poison")["state"] == "completed"
    assert service.worker().pid != worker.pid


def test_deaths_in_renders_one_after_another_make_it_not_ready_until_one_is_done(service: VideoProcess):
    put(service, "healthy", "go")
    service.wait_ended("healthy")
    for n in range(3):
        put(service, f"die-{n}", "die")
        assert service.wait_ended(f"die-{n}")["error"]["code"] == "worker_died"
        if n < 2:
            service.wait_ready()
    health = service.http.get("/readyz").json()
    assert (health["ready"], health["stuck"]) == (False, True)
    assert "SIGKILL" in health["reasons"][0]
    refused = put(service, "not-now", "go")
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    service.wait_ready()
    assert put(service, "not-now", "go").status_code == 202
    assert service.wait_ended("not-now")["state"] == "completed"


def test_a_fault_in_the_task_that_carries_renders_out_ends_the_service_and_its_worker(model: Path, tmp_path: Path):
    """Whoever started it starts it again; one that answers and never works would be left alone."""
    with running(SCRIPTED, tmp_path / "data", model, SCRIPTED_CRASH="1") as service:
        worker = service.wait_ready().worker()
        put(service, "a", "go")
        assert service.process.wait(30) != 0
        service.until(lambda: not worker.is_running())
        assert "this process ends" in service.log


def test_a_second_service_refuses_the_folder_of_the_first(service: VideoProcess, model: Path):
    with running(SCRIPTED, Path(service.environment["STILLMOTION_DATA"]), model) as second:
        assert second.process.wait(120) == 1
        assert "STILLMOTION_DATA" in second.log
        assert "Traceback" not in second.log
