"""What the gateway does with videos that cannot be marked, and that it starts with no certificate that cannot sign."""

from pathlib import Path

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client
from tests.unit.gateway.model_services import Services


async def test_a_video_that_cannot_be_marked_is_kept_and_its_job_says_so(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services, provenance=True)) as client:
        job = (await client.post("/generate", json={"prompt": "a kite"}, headers={"Prefer": "wait=20"})).json()
        assert job["state"] == "completed", job
        assert "could not be signed" in job["warnings"][0]
        content = (await client.get(job["urls"]["content"])).content
        assert len(content) == job["video"]["num_bytes"]
        told = (await client.get(f"/v1/jobs/{job['id']}/provenance")).json()
        assert told["state"] == "none"
        assert not [name for name in left_behind(tmp_path, job["id"]) if ".part" in name]
        assert (await client.get("/v1/jobs/job_none/provenance")).status_code == 404
