"""Gateways that die or stop in the middle of jobs: another one, or the next, carries on; nothing is rendered twice."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HTTP, KeptProcess, gateway_process, scripted_video_process, until
from tests.unit.gateway.model_services import Services

pytestmark = pytest.mark.slow


@pytest.fixture
def video(tmp_path: Path, model: Path) -> Iterator[KeptProcess]:
    process = scripted_video_process(tmp_path, model)
    process.start()
    yield process
    process.kill()


def submit(gateway: KeptProcess, prompt: str, steps: int = 4) -> dict[str, Any]:
    body = {"prompt": prompt, "seed": 1, "steps": steps, "enhance": "never"}
    answer = HTTP.post(f"{gateway.url}/generate", json=body, timeout=60)
    assert answer.status_code == 202, answer.text
    return answer.json()


def look(gateway: KeptProcess, job: dict[str, Any], wait_s: int = 0) -> dict[str, Any]:
    return HTTP.get(
        f"{gateway.url}{job['urls']['self']}", params={"wait": wait_s}, timeout=wait_s + 20
    ).json()


def completions(folder: Path) -> Counter[str]:
    """How often each render was carried to its end."""
    file = folder / "completions"
    return Counter(line.split()[0] for line in file.read_text().splitlines()) if file.exists() else Counter()


def test_the_jobs_of_an_executor_killed_for_good_are_completed_by_another_within_a_minute(
    tmp_path: Path, vl: Services, video: KeptProcess, postgres_url: str
) -> None:
    gateways = [
        gateway_process(
            tmp_path, name, vl.vl_url, video.url, postgres_url, GATEWAY_CONCURRENCY="3", GATEWAY_DEAD_AFTER_S="4"
        )
        for name in ("east", "west")
    ]
    east, west = gateways
    try:
        east.start()
        east.wait_ready()
        jobs = [submit(east, f"slow kite {n}", steps=20) for n in range(3)]
        until(lambda: all(look(east, job)["progress"]["stage"] == "rendering" for job in jobs), 60)
        west.start()
        west.wait_ready()
        east.kill()
        for job in jobs:
            ended = look(west, job, wait_s=60)
            assert ended["state"] == "completed", ended
            content = HTTP.get(f"{west.url}{ended['urls']['content']}").content
            assert hashlib.sha256(content).hexdigest() == ended["video"]["sha256"]
            assert content == f"{ended['original_prompt']} 1".encode() * 100
        assert completions(tmp_path) == Counter(job["id"] for job in jobs)
    finally:
        for gateway in gateways:
            gateway.kill()


def test_sigterm_leaves_the_running_render_at_work_and_the_restart_finds_it(
    tmp_path: Path, vl: Services, video: KeptProcess, postgres_url: str
) -> None:
    """As `tests/wire/test_gateway_crash.py` has it of SQLite."""
    gateway = gateway_process(tmp_path, "only", vl.vl_url, video.url, postgres_url)
    try:
        gateway.start()
        gateway.wait_ready()
        job = submit(gateway, "slow kite", steps=40)
        until(lambda: look(gateway, job)["progress"]["step"] >= 2, 60)
        assert gateway.terminate() in (0, -15)
        before = HTTP.get(f"{video.url}/v1/videos/{job['id']}").json()
        # On a busy machine it may be over before the gateway is.
        assert before["state"] in ("running", "completed"), "the render goes on while no gateway lives"
        gateway.start()
        gateway.wait_ready()
        assert look(gateway, job, wait_s=30)["state"] == "completed"
        assert completions(tmp_path) == Counter([job["id"]])
        assert "Traceback" not in gateway.log.read_text()
    finally:
        gateway.kill()
