"""A video service whose worker dies in every render, beside a healthy one: every job is done all the same."""

from pathlib import Path

import pytest

from tests.support.processes import scripted_video_process
from tests.unit.gateway.conftest import gateway_settings, open_client
from tests.unit.gateway.model_services import Services

pytestmark = pytest.mark.slow

JOBS = 12


async def test_a_crash_looping_worker_beside_a_healthy_one_costs_no_job(
    tmp_path: Path, vl: Services, model: Path
) -> None:
    folders = {name: tmp_path / name for name in ("broken", "healthy")}
    for folder in folders.values():
        folder.mkdir()
    broken = scripted_video_process(folders["broken"], model, SCRIPTED_DEATHS="1")
    healthy = scripted_video_process(folders["healthy"], model)
    settings = gateway_settings(
        tmp_path / "gateway", vl, video_url_given=f"{broken.url},{healthy.url}", concurrency_given=4)
    try:
        for process in (broken, healthy):
            process.start()
        for process in (broken, healthy):
            process.wait_ready()
        async with open_client(settings) as client:
            jobs = []
            for n in range(JOBS):
                body = {"prompt": f"kite {n}", "seed": n, "steps": 4, "enhance": "never"}
                jobs.append((await client.post("/generate", json=body)).json())
            ended = [(await client.get(job["urls"]["self"], params={"wait": 60}, timeout=80)).json() for job in jobs]
        assert [(job["state"], job["error"]) for job in ended] == [("completed", None)] * JOBS
        assert '"worker lost"' in broken.log.read_text(), "it did get renders"
    finally:
        for process in (broken, healthy):
            process.kill()
