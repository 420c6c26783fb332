"""`Idempotency-Key`: sending again is safe, whatever happened in between."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services

KEY = {"Idempotency-Key": "order-1"}


async def test_the_same_request_leads_to_the_same_job_in_either_encoding_and_after_a_restart(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], where: dict[str, Any]
) -> None:
    form: dict[str, Any] = {"data": {"prompt": "a kite", "steps": "4"}, "files": {"image": ("a.png", picture())}}
    encoded = {"prompt": "a kite", "steps": 4, "image": base64.b64encode(picture()).decode()}
    async with open_client(gateway_settings(tmp_path, services, **where)) as client:
        first = await client.post("/generate", headers=KEY, **form)
        assert first.status_code == 202
        assert "Idempotent-Replayed" not in first.headers
        job_id = first.json()["id"]
        await until(client, job_id, lambda job: job["state"] == "completed")
    async with open_client(gateway_settings(tmp_path, services, **where)) as client:
        for again in (await client.post("/generate", headers=KEY, **form),
                      await client.post("/generate", headers=KEY, json=encoded)):
            assert (again.status_code, again.json()["id"]) == (200, job_id)
            assert again.headers["Idempotent-Replayed"] == "true"
        assert services.script.begun == [job_id]
        assert len((await client.get("/v1/jobs")).json()["data"]) == 1


async def test_another_body_under_the_same_key_is_refused(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job_id = (await client.post("/generate", headers=KEY, json={"prompt": "a kite"})).json()["id"]
        for other in (
            client.post("/generate", headers=KEY, json={"prompt": "a boat"}),
            client.post("/generate", headers=KEY, json={"prompt": "a kite", "seed": 1}),
            client.post("/generate", headers=KEY, data={"prompt": "a kite"}, files={"image": ("a.png", picture())}),
        ):
            refused = await other
            assert refused.status_code == 422
            assert (refused.json()["code"], refused.json()["job_id"]) == ("idempotency_key_reused", job_id)
        openai = await client.post("/v1/videos", headers=KEY, json={"prompt": "a boat"})
        assert (openai.status_code, openai.json()["error"]["code"]) == (400, "idempotency_key_reused")
        same = await client.post("/v1/videos", headers=KEY, json={"prompt": "a kite"})
        assert same.json()["id"] == job_id
        await until(client, job_id, lambda job: job["state"] == "completed")


async def test_twenty_at_once_make_one_job(
    tmp_path: Path, services: Services, picture: Callable[..., bytes], where: dict[str, Any]
) -> None:
    """The database decides, not the look before: what the others had written is gone again."""
    async with open_client(gateway_settings(tmp_path, services, **where)) as client:
        data = picture()

        async def post() -> httpx.Response:
            return await client.post("/generate", headers=KEY, files={"image": ("a.png", data)})

        answers = await asyncio.gather(*(post() for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {200, 202}
        ids = {answer.json()["id"] for answer in answers}
        assert len(ids) == 1
        assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
        job_id = ids.pop()
        await until(client, job_id, lambda job: job["state"] == "completed")
        assert services.script.begun == [job_id]
        folders = {name.split("/")[0] for name in left_behind(tmp_path)}
        assert folders == {job_id}


async def test_a_key_belongs_to_its_job_and_a_refused_request_takes_none(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        assert (await client.post("/generate", headers=KEY, json={"prompt": "a", "steps": 99})).status_code == 422
        first = (await client.post("/generate", headers=KEY, json={"prompt": "a kite"})).json()["id"]
        await until(client, first, lambda job: job["state"] == "completed")
        await client.delete(f"/v1/jobs/{first}")
        second = await client.post("/generate", headers=KEY, json={"prompt": "a boat"})
        assert second.status_code == 202
        long = await client.post("/generate", headers={"Idempotency-Key": "k" * 300}, json={"prompt": "a kite"})
        assert long.status_code == 422
