"""Laws of links: one opens one video, for a while, for whoever holds it; nobody else can make one."""

from pathlib import Path

import httpx
import pytest

import gateway.auth.links
from gateway.auth.keys import KeyLimits, KeyStore
from gateway.auth.links import LinkExpired, LinkRefused, Links
from gateway.database.database import Database
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import Services, video_bytes

LINKS = Links(key=b"key of this deployment", valid_s=100.0)


def at(now: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway.auth.links.time, "time", lambda: now)


def token(link: str) -> str:
    return link.rpartition("/")[2]


def test_a_link_lasts_for_its_time_at_least_and_twice_that_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for made_at in (1000.0, 1001.0, 1050.0, 1099.9):
        at(made_at, monkeypatch)
        link = token(LINKS.to_video("job_1"))
        for still in (0.0, 100.0):
            at(made_at + still, monkeypatch)
            assert LINKS.read(link) == "job_1"
        at(made_at + 200.0, monkeypatch)
        with pytest.raises(LinkExpired):
            LINKS.read(link)


def test_a_link_stays_the_same_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    at(1000.0, monkeypatch)
    first = LINKS.to_video("job_1")
    at(1099.0, monkeypatch)
    assert LINKS.to_video("job_1") == first != LINKS.to_video("job_2")
    at(1100.0, monkeypatch)
    assert LINKS.to_video("job_1") != first


def test_nobody_else_makes_or_changes_a_link() -> None:
    good = token(LINKS.to_video("job_1"))
    payload, _, signature = good.rpartition(".")
    other = token(LINKS.to_video("job_2")).rpartition(".")[0]
    foreign = token(Links(key=b"another key", valid_s=100.0).to_video("job_1"))
    for forged in (payload, f"{other}.{signature}", f"{payload}.", foreign, "", "é", "a.b.c", good[:-2]):
        with pytest.raises(LinkRefused):
            LINKS.read(forged)


async def test_a_link_on_a_job_opens_its_video_without_a_key_and_nothing_else(
    tmp_path: Path, services: Services
) -> None:
    settings = gateway_settings(tmp_path, services, keys="required", link_s=3600.0)
    _, secret = KeyStore(Database(settings.jobs_database_url)).create("alice", KeyLimits())
    async with open_client(settings) as client:
        anonymous = httpx.AsyncClient(transport=client._transport, base_url="http://localhost")
        client.headers["Authorization"] = f"Bearer {secret}"
        queued = (await client.post("/generate", json={"prompt": "a kite"})).json()
        assert queued["urls"]["link"] is None
        job = await until(client, queued["id"], lambda job: job["state"] == "completed")
        link = job["urls"]["link"]
        served = await anonymous.get(link, headers={"Range": "bytes=0-9"})
        assert (served.status_code, served.content) == (206, video_bytes(job["id"])[:10])
        assert (await anonymous.head(link)).headers["ETag"] == f'"{job["video"]["sha256"]}"'
        assert (await anonymous.get(job["urls"]["content"])).status_code == 401
        assert (await anonymous.get(f"{link}x")).json()["code"] == "link_unknown"
        assert (await client.get(job["urls"]["self"])).json()["urls"]["link"] == link
        await client.delete(job["urls"]["self"])
        assert (await anonymous.get(link)).status_code == 404


async def test_without_the_setting_no_link_is_made_or_read(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job_id = (await client.post("/generate", json={"prompt": "a kite"})).json()["id"]
        job = await until(client, job_id, lambda job: job["state"] == "completed")
        assert job["urls"]["link"] is None
        assert (await client.get(LINKS.to_video(job_id))).status_code == 404
