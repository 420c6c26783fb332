"""`/metrics` tells the truth about jobs, the queue and the services; one trace runs through all of them."""

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import Services

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def series(client: httpx.AsyncClient) -> dict[str, float]:
    """Every sample by `name{label=value,…}`, labels in alphabetical order."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "{" + ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())) + "}":
            sample.value
        for family in text_string_to_metric_families(answer.text) for sample in family.samples
    }


async def test_the_series_follow_the_jobs_through_queue_and_end(tmp_path: Path, services: Services) -> None:
    services.script.may_go_on.clear()
    async with open_client(gateway_settings(tmp_path, services, concurrency_given=1)) as client:
        first = (await client.post("/generate", json={"prompt": "one"})).json()
        await until(client, first["id"], lambda job: job["progress"]["step"] == 2)  # the service holds it there
        second = (await client.post("/generate", json={"prompt": "two"})).json()
        third = (await client.post("/generate", json={"prompt": "three"})).json()
        busy = await series(client)
        assert (busy["stillmotion_jobs{state=queued}"], busy["stillmotion_jobs{state=running}"]) == (2, 1)
        assert busy["stillmotion_queue_depth{}"] == 2
        assert busy["stillmotion_queue_oldest_age_seconds{}"] > 0
        assert busy[f"stillmotion_upstream_outstanding{{address={services.video_url},service=video_service}}"] == 1
        assert busy[f"stillmotion_upstream_healthy{{address={services.video_url},service=video_service}}"] == 1
        assert busy["stillmotion_disk_free_bytes{}"] > 0

        await client.post(second["urls"]["cancel"])
        services.script.may_go_on.set()
        await until(client, third["id"], lambda job: job["state"] == "completed")
        done = await series(client)
        assert done["stillmotion_jobs_ended_total{code=none,state=completed}"] == 2
        assert done["stillmotion_jobs_ended_total{code=none,state=canceled}"] == 1
        assert done["stillmotion_stage_seconds_count{stage=rendering}"] == 2
        assert done["stillmotion_stage_seconds_sum{stage=render.denoise}"] == 0.6  # what the service reported, twice
        assert done["stillmotion_queue_depth{}"] == 0
        assert done["stillmotion_queue_oldest_age_seconds{}"] == 0


async def test_no_path_of_a_caller_becomes_a_series(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        for index in range(5):
            await client.get(f"/v1/jobs/job_{index}")
            await client.get(f"/nothing/{index}")
        counted = [name for name in await series(client) if name.startswith("stillmotion_http_request_seconds_count")]
        assert counted == [
            "stillmotion_http_request_seconds_count{method=GET,route=/v1/jobs/{job_id},status=404}",
            "stillmotion_http_request_seconds_count{method=none,route=none,status=404}",
        ]


async def test_the_trace_of_a_request_reaches_both_services_with_its_job(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "mine-7"}
        job = (await client.post(
            "/generate", json={"prompt": "one", "enhance": "always"}, headers=headers
        )).json()
        await until(client, job["id"], lambda job: job["state"] == "completed")
    assert len(services.script.headers) == 2  # describe and render
    for heard in services.script.headers:
        assert heard["traceparent"].startswith(f"00-{TRACE}-")
        assert heard["traceparent"].endswith("-01")
        assert heard["x-request-id"] == "mine-7"
        assert heard["x-stillmotion-job"] == job["id"]
