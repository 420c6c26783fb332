"""Every error is JSON, whoever refused: a route, the framework or a limit."""

import json
from pathlib import Path

import httpx
import pytest

from contracts.errors import Problem
from contracts.openai.videos import OpenAIError, SharedProblem
from tests.unit.gateway.conftest import gateway_settings, open_client
from tests.unit.gateway.model_services import Services

JSON = {"Content-Type": "application/json"}
REFUSED = {
    "no such route": ("GET", "/nothing", {}),
    "wrong method": ("PUT", "/generate", {}),
    "nothing to animate": ("POST", "/generate", {"json": {}}),
    "not JSON": ("POST", "/generate", {"content": b"{", "headers": JSON}),
    "not UTF-8": ("POST", "/generate", {"content": b"\xff\xfe", "headers": JSON}),
    "unknown field": ("POST", "/generate", {"json": {"prompt": "a kite", "sise": "1x1"}}),
    "not a picture": ("POST", "/generate", {"files": {"image": ("a.png", b"hello")}}),
    "unsupported body": ("POST", "/generate", {"content": b"x", "headers": {"Content-Type": "text/html"}}),
    "no such job": ("GET", "/v1/jobs/job_unknown", {}),
    "quotes in the path": ("GET", "/v1/jobs/%22%0a%5c", {}),
    "a page of 1000": ("GET", "/v1/jobs?limit=1000", {}),
    "no such file": ("GET", "/v1/files/file_unknown/content", {}),
    "no such model": ("GET", "/v1/models/sora/2", {}),
    "no such link": ("GET", "/v1/links/x", {}),
    "OpenAI: no such video": ("GET", "/v1/videos/video_unknown", {}),
    "OpenAI: no prompt": ("POST", "/v1/videos", {"json": {}}),
}


def error_type(path: str) -> type[OpenAIError | Problem]:
    """What the errors of a route are."""
    if path.startswith(("/v1/videos", "/v1/chat")):
        return OpenAIError
    return SharedProblem if path.startswith(("/v1/files", "/v1/models")) else Problem


async def test_every_refusal_is_json_that_names_its_status_and_what_to_do(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        for name, (method, path, sent) in REFUSED.items():
            answer = await client.request(method, path, **sent)
            assert 400 <= answer.status_code < 500, name
            said = error_type(path).model_validate(json.loads(answer.content))
            if isinstance(said, OpenAIError | SharedProblem):
                assert said.error.message, name
            if isinstance(said, Problem):
                assert answer.headers["Content-Type"] == "application/problem+json", name
                assert said.status == answer.status_code, name
                assert said.detail, name
                assert said.code, name


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/videos", "/metrics"])
async def test_a_missing_key_is_told_in_json(tmp_path: Path, services: Services, path: str) -> None:
    async with open_client(gateway_settings(tmp_path, services, keys="required")) as client:
        answer: httpx.Response = await client.get(path)
        assert answer.status_code == 401
        assert json.loads(answer.content)
