"""What goes wrong behind the gateway: which service, what it says, what is tried again and how often."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.errors import Problem
from gateway.jobs.queue import Claim
from gateway.run.recovery import review
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, open_gateway, until
from tests.unit.gateway.model_services import Services

WAIT = {"Prefer": "wait=20"}
MakePicture = Callable[..., bytes]


def failure(code: str) -> Problem:
    return Problem(status=500, code=code, title="The render failed", detail="The worker was killed by signal 9.")


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def ended(client: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    answer = await client.post("/generate", headers=WAIT, **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_while_the_vl_service_is_away_jobs_wait_that_need_it_and_others_go_on(
    tmp_path: Path, services: Services, picture: MakePicture
) -> None:
    async with open_client(gateway_settings(tmp_path, services, vl_url_given=nobody())) as client:
        waits = (await client.post("/generate", files={"image": ("a.png", picture())})).json()
        stands = await ended(client, files={"image": ("a.png", picture())}, data={"prompt": "x", "enhance": "never"})
        assert stands["state"] == "completed", "words that stand need no description"
        assert "Not captioned" in stands["warnings"][-1]
        words = await ended(client, json={"prompt": "a kite"})
        assert words["state"] == "completed"
        assert "vl_service: cannot be reached" in (await client.get("/readyz")).json()["reasons"][0]
        shown = (await client.get(waits["urls"]["self"])).json()
        assert (shown["state"], shown["progress"]["waiting_for"]) == ("queued", "vl_service")
        assert "cannot be reached" in shown["progress"]["waiting_detail"]
        assert shown["progress"]["eta_s"] is None
        assert (await client.post(shown["urls"]["cancel"])).json()["state"] == "canceled"


async def test_what_the_model_could_not_read_is_a_warning_on_the_job_once_however_often_it_is_said(
    tmp_path: Path, services: Services, picture: MakePicture
) -> None:
    services.script.describe_warnings = ["The prompt is in a language that the model does not know."]
    async with open_client(gateway_settings(tmp_path, services)) as client:
        for _ in range(2):  # the second time from what was written before
            job = await ended(client, files={"image": ("a.png", picture())}, data={"prompt": "Кот", "seed": "1"})
            assert job["state"] == "completed"
            assert [said for said in job["warnings"] if "language" in said] == services.script.describe_warnings
        assert len(services.script.describe_calls) == 1


async def test_what_the_render_did_not_do_as_asked_is_a_warning_on_the_job(
    tmp_path: Path, services: Services
) -> None:
    said = ["The prompt is longer than the 128 tokens that the model reads; it was cut after the words “to the left”."]
    services.script.render_warnings = said
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert (job["state"], job["warnings"]) == ("completed", said)


async def test_a_job_waits_for_what_is_away_until_its_deadline_and_fails_with_it(
    tmp_path: Path, services: Services, picture: MakePicture
) -> None:
    settings = gateway_settings(tmp_path, services, vl_url_given=nobody(), job_deadline_s=0.4)
    async with open_client(settings) as client:
        job = await ended(client, files={"image": ("a.png", picture())})
        assert (job["state"], job["error"]["code"]) == ("failed", "vl_service_unavailable")
        assert job["error"]["job_id"] == job["id"]
        assert "GATEWAY_JOB_DEADLINE_S" in job["error"]["detail"]
        assert "cannot be reached" in job["error"]["detail"]
        assert job["timings"]["total"] >= 0.4


@pytest.mark.parametrize(("status", "calls", "code"), [(500, 2, "vl_service_failed"), (422, 1, "vl_service_refused")])
async def test_what_may_be_the_jobs_own_fault_is_tried_once_more_and_what_surely_is_never(
    status: int, calls: int, code: str, tmp_path: Path, services: Services, picture: MakePicture
) -> None:
    services.script.describe_status = status
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, files={"image": ("a.png", picture())})
        assert (job["state"], job["error"]["code"]) == ("failed", code)
        assert len(services.script.describe_calls) == calls
        assert "the script says no" in job["error"]["detail"]


async def test_a_render_that_died_with_its_worker_is_begun_once_more(tmp_path: Path, services: Services) -> None:
    services.script.failures = [failure("worker_died")]
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert job["state"] == "completed"
        assert "Begun again" in job["warnings"][0]
        assert services.script.begun == [job["id"]] * 2
        services.script.failures = [failure("worker_died"), failure("worker_died")]
        job = await ended(client, json={"prompt": "a kite"})
        assert (job["state"], job["error"]["code"]) == ("failed", "worker_died")
        assert "killed by signal 9" in job["error"]["detail"]
        assert "video_service" in job["error"]["detail"]
        assert services.script.begun.count(job["id"]) == 2


async def test_a_render_that_would_fail_the_same_way_is_not_begun_again(tmp_path: Path, services: Services) -> None:
    services.script.failures = [failure("out_of_memory")]
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert (job["state"], job["error"]["code"]) == ("failed", "out_of_memory")
        assert services.script.begun == [job["id"]]


async def test_a_busy_video_service_is_waited_for(tmp_path: Path, services: Services) -> None:
    services.script.busy_answers = 5
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert job["state"] == "completed"
        assert len(services.script.begun) == 1


async def test_a_render_that_the_video_service_forgot_is_put_again(tmp_path: Path, services: Services) -> None:
    services.script.forget_on_put = True
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert job["state"] == "completed", job
        assert services.script.puts == [job["id"]] * 2


async def test_a_damaged_download_is_never_kept(tmp_path: Path, services: Services) -> None:
    services.script.damaged_downloads = 1
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert job["state"] == "completed"
        services.script.damaged_downloads = 100
        job = await ended(client, json={"prompt": "a kite"})
        assert job["state"] == "failed"
        assert "checksum" in job["error"]["detail"]
        assert left_behind(tmp_path, job["id"]) == []


async def test_a_render_without_end_is_stopped_at_its_deadline(tmp_path: Path, services: Services) -> None:
    services.script.may_go_on.clear()
    async with open_client(gateway_settings(tmp_path, services, render_timeout_s=0.3)) as client:
        job = await ended(client, json={"prompt": "a kite"})
        assert (job["state"], job["error"]["code"]) == ("failed", "render_timeout")
        assert services.script.deleted == [job["id"]]
    services.script.may_go_on.set()


async def test_without_the_video_service_nothing_is_accepted_and_the_answer_says_so(
    tmp_path: Path, services: Services, picture: MakePicture
) -> None:
    async with open_client(gateway_settings(tmp_path, services, video_url_given=nobody())) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture())})
        assert (answer.status_code, answer.json()["code"]) == (503, "video_service_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert left_behind(tmp_path) == []
        models = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models] == ["tiny-vl"]


async def test_an_error_nobody_foresaw_fails_the_job_and_not_the_gateway(
    tmp_path: Path, services: Services, picture: MakePicture, caplog: pytest.LogCaptureFixture
) -> None:
    services.script.describe_delay_s = 0.3
    async with open_client(gateway_settings(tmp_path, services)) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture())})
        job = answer.json()
        await until(client, job["id"], lambda job: job["state"] == "running")
        (tmp_path / "gateway" / "files" / job["id"] / "input.png").unlink()
        job = await until(client, job["id"], lambda job: job["state"] == "failed")
        assert job["error"]["code"] == "internal_error"
        assert "FileNotFoundError" in caplog.text
        assert (await ended(client, json={"prompt": "a kite"}))["state"] == "completed"


async def test_the_token_is_on_every_internal_call(tmp_path: Path, services: Services, picture: MakePicture) -> None:
    async with open_client(gateway_settings(tmp_path, services, internal_token="s3cret")) as client:
        await ended(client, files={"image": ("a.png", picture())})
    assert [headers["authorization"] for headers in services.script.headers] == ["Bearer s3cret"] * 2


async def test_a_job_at_which_the_gateway_ended_too_often_is_failed_and_not_tried_again(
    tmp_path: Path, services: Services
) -> None:
    services.script.may_go_on.clear()
    settings = gateway_settings(tmp_path, services, max_recoveries=1, concurrency_given=1)
    async with open_client(settings) as client:
        job = (await client.post("/generate", json={"prompt": "a kite"})).json()
        await until(client, job["id"], lambda job: job["progress"]["stage"] == "rendering")
    for _ in range(2):  # the first restart takes the job up again, the second one is once too often
        async with open_client(settings) as client:
            await asyncio.sleep(2.5)  # the engine takes up what it was at once a second
            shown = (await client.get(job["urls"]["self"])).json()
            assert shown["state"] == "running"
    async with open_client(settings) as client:
        failed = (await client.get(job["urls"]["self"])).json()
        assert (failed["state"], failed["error"]["code"]) == ("failed", "crashed_too_often")
        services.script.may_go_on.set()
        assert (await ended(client, json={"prompt": "another kite"}))["state"] == "completed"


async def test_a_job_that_its_process_let_go_of_is_carried_on_after_two_reviews(
    tmp_path: Path, services: Services
) -> None:
    """As after a silence that the others took for death, when a job had been begun just before it was learnt."""
    services.script.may_go_on.clear()
    async with open_gateway(gateway_settings(tmp_path, services)) as (client, opened):
        job = (await client.post("/generate", json={"prompt": "a kite"})).json()
        await until(client, job["id"], lambda job: job["progress"]["stage"] == "rendering")
        opened.engine.drop_running()
        await asyncio.sleep(0.1)
        services.script.may_go_on.set()
        await review(opened.care)
        claim = Claim(job_id=job["id"], number=0)
        assert (await opened.engine.review([claim])).adrift == (claim,)
        await review(opened.care)
        await until(client, job["id"], lambda job: job["state"] == "completed")
    assert services.script.begun == [job["id"]]


async def test_a_disk_without_room_makes_the_gateway_unready(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services, min_free_bytes=2**60)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["stuck"] is True
        assert "MiB free on disk" in answer.json()["reasons"][0]
        file = {"file": ("cat.png", b"never read", "image/png")}
        for refused in (
            await client.post("/generate", json={"prompt": "a kite"}), await client.post("/v1/files", files=file)
        ):
            assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
            assert int(refused.headers["Retry-After"]) > 0
    assert left_behind(tmp_path) == []
