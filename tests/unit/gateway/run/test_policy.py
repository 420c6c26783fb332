"""GATEWAY_POLICY: what the policy refuses is refused with its reason, what it doubts is shown; no word is changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.describe import Verdict
from tests.unit.gateway.conftest import gateway_settings, open_client, until
from tests.unit.gateway.model_services import Services

REASON = "A knife is shown"
AS_THEY_ARE = {"prompt": "a kite", "enhance": "never"}
REVIEW = f"To be reviewed by this server's policy: {REASON}."


@pytest.mark.parametrize("verdict", ["ok", "review", "refuse"])
async def test_a_job_is_judged_with_all_that_was_sent(
    verdict: Verdict, tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    services.script.verdict = verdict
    async with open_client(gateway_settings(tmp_path, services, policy=True)) as client:
        sent: list[dict[str, Any]] = [
            {"json": AS_THEY_ARE}, {"files": {"image": ("a.png", picture(64, 64))}},
            {"files": {"image": ("a.png", picture(64, 64))}, "data": AS_THEY_ARE}]
        jobs = [
            await until(client, (await client.post("/generate", **body)).json()["id"], lambda job: job["finished_at"])
            for body in sent]
    asked = [call for call in services.script.describe_calls if any(task.kind == "verdict" for task in call.tasks)]
    assert [(call.image is not None, [task.user_prompt for task in call.tasks if task.kind == "verdict"])
            for call in asked] == [(False, ["a kite"]), (True, [None]), (True, ["a kite"])]
    for job in jobs:
        if verdict == "refuse":
            assert (job["state"], job["error"]["code"], job["error"]["status"]) == ("failed", "policy_refused", 422)
            assert job["error"]["detail"].startswith(REASON)
        else:
            assert (job["state"], REVIEW in job["warnings"]) == ("completed", verdict == "review")
    if verdict != "refuse":
        assert [services.script.requests[job["id"]].prompt for job in (jobs[0], jobs[2])] == ["a kite"] * 2
    else:
        assert services.script.begun == []


async def test_a_description_is_judged_in_its_own_call(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services, policy=True)) as client:
        async def ask() -> Any:
            return await client.post(
                "/v1/describe", files={"image": ("a.png", picture(64, 64))}, data={"question": "What is cut?"})

        services.script.verdict = "review"
        results = (await ask()).json()["results"]
        assert [result["kind"] for result in results] == ["caption", "prompt", "edit_suggestion", "question"]
        assert all(result["warnings"] == [REVIEW] for result in results)
        [call] = services.script.describe_calls
        assert [task.user_prompt for task in call.tasks if task.kind == "verdict"] == ["What is cut?"]
        services.script.verdict = "refuse"
        refused = await ask()
        assert (refused.status_code, refused.json()["code"]) == (422, "policy_refused")
        assert refused.json()["detail"].startswith(REASON)


async def test_without_the_setting_nothing_is_judged(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    services.script.verdict = "refuse"
    async with open_client(gateway_settings(tmp_path, services)) as client:
        answer = await client.post("/generate", files={"image": ("a.png", picture(64, 64))})
        job = await until(client, answer.json()["id"], lambda job: job["finished_at"])
    assert job["state"] == "completed"
    assert all(task.kind != "verdict" for call in services.script.describe_calls for task in call.tasks)
