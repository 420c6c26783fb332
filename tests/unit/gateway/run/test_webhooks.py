"""Laws of webhooks: a job's end reaches its receiver, signed, once it can; a receiver never holds a job up."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
from standardwebhooks import Webhook, WebhookVerificationError

import gateway.runtime
from gateway.auth.addresses import AddressRefused
from gateway.auth.signing import open_signer
from gateway.run.webhooks import Patience, check_address
from gateway.settings import GatewaySettings
from tests.support.processes import free_port
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.test_metrics import series

IMPATIENT = Patience(answer_s=0.5, first_wait_s=0.05, growth=2.0, longest_wait_s=0.4)


class Receiver:
    """A real HTTP server that answers as told (204 when it was told nothing) and remembers what it got."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook?for=me"
        self.answers: list[Response] = []
        self.delay_s = 0.0
        self.got: list[tuple[dict[str, str], bytes, float]] = []

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body, _ in self.got]


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[Receiver]:
    app = FastAPI()

    @app.post("/hook")
    async def hook(request: Request) -> Response:
        receiver.got.append((dict(request.headers), await request.body(), time.time()))
        await asyncio.sleep(receiver.delay_s)
        return receiver.answers.pop(0) if receiver.answers else Response(status_code=204)

    port = int(receiver.url.split(":")[2].split("/")[0])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:  # noqa: ASYNC110 - uvicorn sets an attribute and has no event to wait for
            await asyncio.sleep(0.01)
    try:
        yield receiver
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
def settings(tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch) -> GatewaySettings:
    """Of a gateway that may call receivers on this machine, and tries again within milliseconds, not minutes."""
    monkeypatch.setattr(gateway.runtime, "Patience", lambda: IMPATIENT)
    return gateway_settings(
        tmp_path, services, webhook_http=True, open_networks="127.0.0.0/8", public_url="https://video.example.com"
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver(free_port())) as started:
        yield started


@pytest.fixture
async def sender(settings: GatewaySettings) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(settings) as opened:
        yield opened


async def submit(client: httpx.AsyncClient, url: str, **options: Any) -> str:
    answer = await client.post("/generate", json={"prompt": "a kite", "webhook_url": url, **options})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def settled(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """The webhook once it is over."""
    over = ("delivered", "refused", "given_up")
    return (await until(client, job_id, lambda job: job["webhook"]["state"] in over))["webhook"]


async def tried(client: httpx.AsyncClient) -> dict[str, float]:
    """The attempts that this process counted, by outcome."""
    name = "stillmotion_webhook_attempts_total{outcome="
    return {key[len(name):-1]: value for key, value in (await series(client)).items() if key.startswith(name)}


async def test_a_jobs_end_is_told_once_and_the_signature_is_that_of_standard_webhooks(
    sender: httpx.AsyncClient, receiver: Receiver, settings: GatewaySettings
) -> None:
    job_id = await submit(sender, receiver.url, metadata={"order": "7"})
    webhook = await settled(sender, job_id)
    assert (webhook["state"], webhook["url"], webhook["next_try_at"]) == ("delivered", receiver.url, None)
    assert [attempt["status"] for attempt in webhook["attempts"]] == [204]
    (headers, body, _), = receiver.got
    secret = open_signer(None, settings.state_dir).webhook_secret("local")
    told = Webhook(secret).verify(body, headers)
    assert told["type"] == "job.completed"
    assert (told["data"]["id"], told["data"]["metadata"]) == (job_id, {"order": "7"})
    assert told["data"]["urls"]["content"] == f"https://video.example.com/v1/jobs/{job_id}/content"
    assert told["timestamp"] == told["data"]["finished_at"].replace("Z", "+00:00")
    for forged in (body.replace(b"completed", b"forgotten"), body + b" "):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(forged, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(open_signer(None, settings.state_dir).webhook_secret("key_of_another")).verify(body, headers)


async def test_a_receiver_that_stumbles_is_tried_again_with_growing_waits_under_the_same_id(
    sender: httpx.AsyncClient, receiver: Receiver, settings: GatewaySettings
) -> None:
    receiver.answers = [Response(status_code=500), Response(status_code=302, headers={"Location": "/else"}),
                        Response(status_code=404)]
    webhook = await settled(sender, await submit(sender, receiver.url))
    assert [attempt["status"] for attempt in webhook["attempts"]] == [500, 302, 404, 204]
    assert webhook["state"] == "delivered"
    assert await tried(sender) == {"failed": 3, "delivered": 1, "refused": 0, "given_up": 0}
    assert len({headers["webhook-id"] for headers, _, _ in receiver.got}) == 1
    assert len({body for _, body, _ in receiver.got}) == 1
    secret = open_signer(None, settings.state_dir).webhook_secret("local")
    for headers, body, _ in receiver.got:
        Webhook(secret).verify(body, headers)
    waits = [after[2] - before[2] for before, after in zip(receiver.got, receiver.got[1:], strict=False)]
    assert all(waited >= 0.75 * wanted for waited, wanted in zip(waits, (0.05, 0.1, 0.2), strict=True)), waits


async def test_gone_ends_it_at_once(sender: httpx.AsyncClient, receiver: Receiver) -> None:
    receiver.answers = [Response(status_code=410)]
    webhook = await settled(sender, await submit(sender, receiver.url))
    assert webhook["state"] == "refused"
    assert await tried(sender) == {"failed": 0, "delivered": 0, "refused": 1, "given_up": 0}
    await asyncio.sleep(0.3)
    assert len(receiver.got) == 1


async def test_a_receiver_that_asks_for_time_gets_it(sender: httpx.AsyncClient, receiver: Receiver) -> None:
    receiver.answers = [Response(status_code=503, headers={"Retry-After": "4000"})]
    job_id = await submit(sender, receiver.url)
    job = await until(sender, job_id, lambda job: len(job["webhook"]["attempts"]) == 1)
    assert job["webhook"]["state"] == "sending"
    assert job["webhook"]["next_try_at"] is not None
    await settled(sender, job_id)
    assert receiver.got[1][2] - receiver.got[0][2] >= IMPATIENT.longest_wait_s, "as long as the longest wait, no longer"


async def test_a_receiver_that_is_down_or_silent_never_delays_a_job(
    sender: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.delay_s = 60.0
    nobody = f"http://127.0.0.1:{free_port()}/hook"
    began = time.monotonic()
    jobs = [await submit(sender, url) for url in (nobody, receiver.url)]
    for job_id in jobs:
        job = await until(sender, job_id, lambda job: job["state"] == "completed")
        assert job["timings"]["total"] < 30
    assert time.monotonic() - began < 30, "the receiver is silent for 60 s"
    down = await until(sender, jobs[0], lambda job: bool(job["webhook"]["attempts"]))
    assert "ConnectError" in down["webhook"]["attempts"][0]["error"]
    silent = await until(sender, jobs[1], lambda job: bool(job["webhook"]["attempts"]))
    assert silent["webhook"]["attempts"][0]["error"] == "no answer within 0.5 s"


async def test_what_cannot_be_delivered_in_time_is_given_up(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = replace(IMPATIENT, give_up_after_s=2.0)
    monkeypatch.setattr(gateway.runtime, "Patience", lambda: hurried)
    async with open_client(settings) as client:
        webhook = await settled(client, await submit(client, f"http://127.0.0.1:{free_port()}/"))
        assert (await tried(client))["given_up"] == 1
    assert webhook["state"] == "given_up"
    assert 2 <= len(webhook["attempts"]) <= 12
    assert webhook["next_try_at"] is None


async def test_failed_and_canceled_jobs_are_told_as_well(
    sender: httpx.AsyncClient, receiver: Receiver, services: Services
) -> None:
    services.script.describe_status = 400
    failed = await submit(sender, receiver.url, enhance="always")
    await settled(sender, failed)
    services.script.describe_status = 200
    services.script.may_go_on.clear()
    try:
        canceled = await submit(sender, receiver.url)
        await until(sender, canceled, lambda job: job["state"] == "running")
        await sender.post(f"/v1/jobs/{canceled}/cancel")
        await settled(sender, canceled)
    finally:
        services.script.may_go_on.set()
    told = {body["data"]["id"]: body for body in receiver.bodies}
    assert told[failed]["type"] == "job.failed"
    assert told[failed]["data"]["error"]["code"]
    assert told[canceled]["type"] == "job.canceled"


async def test_a_restart_in_between_loses_no_webhook(settings: GatewaySettings, where: dict[str, Any]) -> None:
    settings = GatewaySettings.model_validate({**settings.model_dump(), **where})
    receiver = Receiver(free_port())
    async with open_client(settings) as client:
        job_id = await submit(client, receiver.url)
        await until(client, job_id, lambda job: len(job["webhook"]["attempts"]) >= 2)
    async with listening(receiver), open_client(settings) as client:
        webhook = await settled(client, job_id)
    assert webhook["state"] == "delivered"
    assert len(receiver.got) == 1
    assert [attempt["status"] for attempt in webhook["attempts"]][-1] == 204


async def test_a_job_that_ended_just_before_a_crash_is_told_after_it(
    settings: GatewaySettings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as crash:
        crash.setattr("gateway.run.webhooks.WebhookSender.keep_dispatching", nothing)
        async with open_client(settings) as client:
            job_id = await submit(client, receiver.url)
            job = await until(client, job_id, lambda job: job["state"] == "completed")
            assert job["webhook"]["state"] == "waiting"
    async with open_client(settings) as client:
        assert (await settled(client, job_id))["state"] == "delivered"
    assert len(receiver.got) == 1


async def test_a_removed_job_is_told_to_nobody(sender: httpx.AsyncClient) -> None:
    receiver = Receiver(free_port())
    job_id = await submit(sender, receiver.url)
    await until(sender, job_id, lambda job: bool(job["webhook"]["attempts"]))
    assert (await sender.delete(f"/v1/jobs/{job_id}")).status_code == 204
    async with listening(receiver):
        await asyncio.sleep(1.0)
    assert receiver.got == []


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://192.0.2.1/", "webhook_url_scheme_not_allowed"),
        ("ftp://example.com/", "webhook_url_scheme_not_allowed"),
        ("https://127.0.0.1/", "webhook_url_address_not_public"), ("https://[::1]/", "webhook_url_address_not_public"),
        ("https://169.254.169.254/latest", "webhook_url_address_not_public"),
        ("https://10.1.2.3:8443/", "webhook_url_address_not_public"),
        ("https://a:b@8.8.8.8/", "webhook_url_with_credentials"),
        ("not a url", "webhook_url_not_plain"), ("https://2130706433/", "webhook_url_unreadable"),
    ],
)
async def test_a_webhook_goes_to_public_https_addresses_only(url: str, code: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        await check_address(url, GatewaySettings().webhook_rules)
    assert f"webhook_{refused.value.code}" == code


async def test_a_webhook_that_could_never_be_delivered_is_refused_at_the_door(
    tmp_path: Path, services: Services
) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        answer = await client.post("/generate", json={"prompt": "a kite", "webhook_url": "https://127.0.0.1/"})
        assert (answer.status_code, answer.json()["code"]) == (422, "webhook_url_address_not_public")
        assert answer.json()["errors"][0]["field"] == "body.webhook_url"
        assert (await client.get("/v1/jobs")).json()["data"] == []


def test_waits_grow_with_jitter_to_a_cap_and_cover_a_day() -> None:
    patience = Patience()
    for attempt, middle in [(1, 5), (2, 20), (3, 80), (7, 14_400), (2000, 14_400)]:
        drawn = [patience.wait_s(attempt) for _ in range(50)]
        assert all(0.75 * middle <= wait <= 1.25 * middle for wait in drawn)
        assert len(set(drawn)) > 10
    assert patience.give_up_after_s == 86_400
