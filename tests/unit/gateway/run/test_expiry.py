"""Laws of expiry: record and files go together, a crash between the two leaves no file, what is young stays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.storage.files import LocalFiles
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services


async def test_a_completed_job_expires_with_its_files_and_says_so(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services, keep_files_s=1.0)) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture())})
        job_id = answer.json()["id"]
        done = await until(client, job_id, lambda job: job["state"] in ("completed", "expired"))
        expired = await until(client, job_id, lambda job: job["state"] == "expired")
        assert expired["expired_at"] is not None
        assert expired["urls"]["content"] is None
        assert (expired["finished_at"], expired["video"]) == (done["finished_at"], done["video"])
        await until(client, job_id, lambda _: left_behind(tmp_path) == [])
        for variant in ("video", "input", "thumbnail"):
            gone = await client.get(f"/v1/jobs/{job_id}/content?variant={variant}")
            assert (gone.status_code, gone.json()["code"]) == (410, "expired")
        assert [job["state"] for job in (await client.get("/v1/jobs")).json()["data"]] == ["expired"]
        assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 409
        assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204


async def test_a_failed_job_keeps_its_state_and_loses_its_picture(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    services.script.describe_status = 400
    async with open_client(gateway_settings(tmp_path, services, keep_files_s=0.5)) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture())})
        job = await until(client, answer.json()["id"], lambda job: job["expired_at"] is not None)
        assert job["state"] == "failed"
        assert job["error"]["code"]
        gone = await client.get(f"/v1/jobs/{job['id']}/content?variant=input")
        assert gone.status_code == 410
        await until(client, job["id"], lambda _: left_behind(tmp_path) == [])


async def test_what_is_young_or_at_work_stays(tmp_path: Path, services: Services) -> None:
    services.script.may_go_on.clear()
    try:
        async with open_client(gateway_settings(tmp_path, services, keep_files_s=3600.0)) as client:
            at_work = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
            await until(client, at_work, lambda job: job["state"] == "running")
            services.script.may_go_on.set()
            await until(client, at_work, lambda job: job["state"] == "completed")
        async with open_client(gateway_settings(tmp_path, services, keep_files_s=3600.0)) as client:
            assert (await client.get(f"/v1/jobs/{at_work}/content")).status_code == 200
    finally:
        services.script.may_go_on.set()


async def test_files_that_a_crash_left_of_an_expired_job_are_swept_at_the_next_start(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = gateway_settings(tmp_path, services, keep_files_s=0.5)
    with monkeypatch.context() as crash:
        crash.setattr(LocalFiles, "remove_job", lambda *_: None)
        async with open_client(settings) as client:
            job_id = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
            await until(client, job_id, lambda job: job["state"] == "expired")
    assert f"{job_id}/video.mp4" in left_behind(tmp_path)
    async with open_client(settings):
        assert left_behind(tmp_path) == []
