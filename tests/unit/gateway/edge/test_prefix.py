"""Behind a path prefix every address that an answer names leads back here; HEAD is wherever GET is."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi.routing import APIRoute

from gateway.api import docs, jobs, models
from gateway.api.media import files, links
from gateway.api.openai import videos as openai_videos
from gateway.api.status import health, metrics
from tests.unit.gateway.conftest import gateway_settings, open_client
from tests.unit.gateway.model_services import Services

WAYS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "the proxy takes it away and says so": ({}, {"X-Forwarded-Prefix": "/video"}, ""),
    "says so with a slash": ({}, {"X-Forwarded-Prefix": "/video/"}, ""),
    "the proxy takes it away": ({"public_url": "https://a.example/video"}, {}, ""),
    "the proxy leaves it": ({"public_url": "https://a.example/video"}, {}, "/video"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_an_answer_names_is_below_the_prefix(tmp_path: Path, services: Services, way: str) -> None:
    settings, headers, called = WAYS[way]
    async with open_client(gateway_settings(tmp_path, services, **settings)) as client:
        client.headers.update(headers)
        made = await client.post(f"{called}/generate", json={"prompt": "a kite"}, headers={"Prefer": "wait=20"})
        job = made.json()
        assert made.headers["Location"] == f"/video/v1/jobs/{job['id']}"
        assert {url.split("/")[1] for url in job["urls"].values() if url} == {"video"}
        listed = (await client.get(f"{called}/v1/jobs")).json()["data"][0]
        assert listed["urls"] == job["urls"]
        refused = await client.get(f"{called}/v1/videos/nothing")
        assert "error" in refused.json(), "still one of OpenAI's routes"
        assert (await client.get(f"{called}/")).headers["Location"] == "/video/docs"
        page = await client.get(f"{called}/docs")
        assert {link.split("/")[1] for link in re.findall(r'(?:src|href)="([^"]+)"', page.text)} == {"video"}
        assert "'/video/openapi.json'" in page.text
        assert (await client.get(f"{called}/openapi.json")).json()["servers"] == [{"url": "/video"}]


@pytest.mark.parametrize("header", ["//evil.example", "https://evil.example", "/a b", "/%2e", "", "/a//evil.example"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_prefix_that_is_none_is_not_repeated(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get("/", headers={"X-Forwarded-Prefix": header})
    assert urljoin("http://localhost/", answer.headers["Location"]) == "http://localhost/docs"


async def test_head_is_wherever_get_is(tmp_path: Path, services: Services) -> None:
    async with open_client(gateway_settings(tmp_path, services)) as client:
        job = (await client.post("/generate", json={"prompt": "a"}, headers={"Prefer": "wait=20"})).json()["id"]
        values = {"job_id": job, "video_id": job, "file_id": "none", "token": "none", "model_id:path": "tiny-wan",
                  "name": "swagger-ui.css"}
        for part in (docs, files, health, jobs, links, metrics, models, openai_videos):
            for route in part.router.routes:
                if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()):
                    continue
                path = re.sub(r"{([^}]+)}", lambda name: values[name[1]], route.path)
                looked, asked = await client.head(path), await client.get(path)
                assert looked.status_code == asked.status_code, path
                assert looked.headers.get("content-type") == asked.headers.get("content-type"), path
        described = (await client.get("/openapi.json")).json()["paths"]
        assert not any("head" in operations for operations in described.values())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "path", ["/v1/jobs/a%00b", "/v1/files/%ff", "/v1/jobs?state=%00", "/v1/videos?after=%ed%a0%80"]
)
async def test_an_address_that_is_no_text_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == (400 if "videos" in path else 422), answer.text
    assert (await client.post(path)).status_code in (400, 405, 422)
