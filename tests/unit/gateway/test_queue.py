"""The bounded queue."""

from collections.abc import Callable
from pathlib import Path

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.services import Services


async def test_a_full_queue_refuses_at_once_and_changes_nothing(tmp_path: Path, services: Services,
                                                                picture: Callable[..., bytes]) -> None:
    services.script.may_go_on.clear()
    settings = gateway_settings(tmp_path, services, concurrency=1, max_queued_jobs=1)
    async with open_client(settings) as client:
        first = (await client.post("/generate", json={"prompt": "one"})).json()
        await until(client, first["id"], lambda job: job["state"] == "running")
        second = (await client.post("/generate", json={"prompt": "two"})).json()
        assert second["progress"]["queue_position"] == 0
        before = left_behind(tmp_path)
        refused = await client.post("/generate", files={"image": ("a.png", picture())})
        assert refused.status_code == 429
        assert refused.json()["code"] == "queue_full"
        assert int(refused.headers["Retry-After"]) > 0
        assert left_behind(tmp_path) == before
        assert len((await client.get("/v1/jobs")).json()["data"]) == 2
        services.script.may_go_on.set()
        await until(client, second["id"], lambda job: job["state"] == "completed")
