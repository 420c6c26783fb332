"""Every process of a deployment is ended in good order and started again under load, one after another: no job is lost,
none fails, none is rendered twice.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.support.processes import HTTP, KeptProcess, gateway_process, scripted_video_process
from tests.unit.gateway.model_services import Services

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

JOBS_BETWEEN = 6


def test_a_rolling_restart_under_load_costs_no_job(
    tmp_path: Path, model: Path, vl: Services, postgres_url: str
) -> None:
    videos = [video(tmp_path / f"video-{n}", model) for n in range(2)]
    listed = ",".join(one.url for one in videos)
    gateways = [
        gateway_process(tmp_path, f"gateway-{n}", vl.vl_url, listed, postgres_url, GATEWAY_PROBE_S="1")
        for n in range(2)
    ]
    try:
        for process in (*videos, *gateways):
            process.start()
        for process in (*videos, *gateways):
            process.wait_ready()
        jobs = submit(gateways[0], 0)
        for turn, process in enumerate((*videos, *gateways), 1):
            jobs += submit(gateways[turn % 2], turn)
            process.terminate(120)
            jobs += submit(next(one for one in gateways if one is not process), -turn)
            process.start()
            process.wait_ready()
        ended = [
            HTTP.get(f"{gateways[0].url}/v1/jobs/{job}", params={"wait": 120}, timeout=150).json() for job in jobs
        ]
        assert [(job["state"], job["error"]) for job in ended] == [("completed", None)] * len(jobs)
        completions = [line.split()[0] for one in videos for line in done(one)]
        assert Counter(completions) == dict.fromkeys(jobs, 1), "each was rendered once"
    finally:
        for process in (*gateways, *videos):
            process.kill()


def video(folder: Path, model: Path) -> KeptProcess:
    folder.mkdir()
    return scripted_video_process(folder, model, VIDEO_DRAIN_S="60")


def done(process: KeptProcess) -> list[str]:
    return (process.log.parent / "completions").read_text().splitlines()


def submit(gateway: KeptProcess, turn: int) -> list[str]:
    found = []
    for n in range(JOBS_BETWEEN):
        body = {"prompt": f"a slow kite {turn} {n}", "seed": n, "steps": 5, "enhance": "never"}
        answer = HTTP.post(f"{gateway.url}/generate", json=body, timeout=60)
        assert answer.status_code == 202, answer.text
        found.append(answer.json()["id"])
    return found
