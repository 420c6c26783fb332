"""Where no key is needed, another site's page neither starts jobs nor reads them; programs and named pages do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.app import create_app
from gateway.settings import GatewaySettings

EVIL, APP = "https://evil.example", "https://app.example.com"
CROSS, SAME_SITE, OWN = ({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "same-origin"))
VISIT = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The gateway's app without what lies behind it: who is let in meets a state that is not there (500)."""
    app: FastAPI = create_app(GatewaySettings.model_validate(settings))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client


LET_IN: dict[str, tuple[str, str, dict[str, str]]] = {
    "curl": ("POST", "/generate", {}), "its own page": ("POST", "/generate", {**OWN, "Origin": "http://127.0.0.1:8000"}),
    "its own page, an older browser": ("POST", "/generate", {"Origin": "http://127.0.0.1:8000"}),
    "its own page at port 80": ("POST", "/generate", {"Host": "localhost", "Origin": "http://localhost"}),
    "behind TLS": ("POST", "/generate", {"Host": "video.example.com", "Origin": "https://video.example.com"}),
    "behind TLS, by its inner name": ("POST", "/generate", {"Host": "gateway:8000", "Origin": "https://video.example.com"}),
    "a hidden origin of its own": ("POST", "/generate", {**OWN, "Origin": "null"}),
    "typed into the address bar": ("GET", "/v1/jobs", {"Sec-Fetch-Site": "none", **VISIT}),
    "a link followed": ("GET", "/docs", {**CROSS, **VISIT}),
    "an allowed page": ("POST", "/generate", {**CROSS, "Origin": APP}),
    "a video in an allowed page": ("GET", "/v1/jobs", {**CROSS, "Referer": f"{APP}/"}),
    "IPv4": ("GET", "/v1/jobs", {"Host": "192.168.1.7:8000"}), "IPv6": ("GET", "/v1/jobs", {"Host": "[::1]:8000"}),
    "localhost": ("GET", "/v1/jobs", {"Host": "LOCALHOST:8000"}),
    "below it": ("GET", "/v1/jobs", {"Host": "a.localhost"}),
    "a name": ("GET", "/v1/jobs", {"Host": "gateway:8000"}),
    "with a dot": ("GET", "/v1/jobs", {"Host": "gateway.:8000"}),
    "a pattern": ("GET", "/v1/jobs", {"Host": "n1.inner.example"}),
    "a probe": ("GET", "/livez", {"Host": "whatever"}), "a collector": ("GET", "/metrics", {"Host": "whatever"}),
    "a signed link in a page": ("GET", "/v1/links/abc", {**CROSS, "Sec-Fetch-Dest": "video"}),
}
KEPT_OUT: dict[str, tuple[str, str, dict[str, str]]] = {
    "a form of another site": ("POST", "/generate", {**CROSS, **VISIT, "Origin": EVIL}),
    "an older browser": ("POST", "/generate", {"Origin": EVIL}), "a sandbox": ("POST", "/generate", {"Origin": "null"}),
    "another site's script": ("GET", "/v1/jobs", {**CROSS, "Sec-Fetch-Mode": "cors", "Origin": EVIL}),
    "a picture in another site": ("GET", "/v1/jobs/x/content", {**CROSS, "Sec-Fetch-Dest": "image"}),
    "a frame in another site": ("GET", "/docs", {**CROSS, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}),
    "another port of this machine": ("POST", "/generate", {**SAME_SITE, "Origin": "http://127.0.0.1:3000"}),
    "an allowed name, another scheme": ("POST", "/generate", {**CROSS, "Origin": "http://app.example.com"}),
    "a name that begins alike": ("POST", "/generate", {"Origin": "http://127.0.0.1:8000.evil.example"}),
    "DNS rebinding": ("GET", "/v1/jobs", {**OWN, "Host": "evil.example:8000"}),
    "rebinding, OpenAI": ("POST", "/v1/videos", {**OWN, "Host": "evil.example", "Origin": "http://evil.example"}),
    "rebinding of a link": ("GET", "/v1/links/abc", {"Host": "evil.example"}),
    "a name below an address": ("GET", "/v1/jobs", {"Host": "127.0.0.1.evil.example"}),
    "an asterisk": ("GET", "/v1/jobs", {"Host": "*"}), "no name": ("GET", "/v1/jobs", {"Host": ":8000"}),
}


@pytest.fixture
async def guarded() -> AsyncIterator[httpx.AsyncClient]:
    async with opened(
        hosts="gateway, *.inner.example", origins=f"{APP}, http://localhost:3000", public_url="https://video.example.com/v"
    ) as client:
        yield client


@pytest.mark.parametrize("name", LET_IN)
async def test_who_may_call_is_let_in(guarded: httpx.AsyncClient, name: str) -> None:
    method, path, headers = LET_IN[name]
    assert (await guarded.request(method, path, headers=headers)).status_code not in (400, 403)


@pytest.mark.parametrize("name", KEPT_OUT)
async def test_who_may_not_is_told_what_would_let_them_in(guarded: httpx.AsyncClient, name: str) -> None:
    method, path, headers = KEPT_OUT[name]
    answer = await guarded.request(method, path, headers=headers)
    assert answer.status_code == 403, answer.text
    assert "GATEWAY_ORIGINS" in answer.text or "GATEWAY_HOSTS" in answer.text
    assert ("error" in answer.json()) == path.startswith("/v1/videos")


async def test_where_keys_are_needed_a_page_without_one_gets_nothing_and_names_do_not_matter() -> None:
    async with opened(keys="required") as client:
        answer = await client.get("/docs", headers={"Host": "anything.example", "Origin": EVIL, **CROSS})
        assert answer.status_code == 200


async def test_every_host_may_be_named_and_still_other_pages_are_kept_out() -> None:
    async with opened(hosts="*") as client:
        assert (await client.get("/docs", headers={"Host": "any.example"})).status_code == 200
        assert (await client.get("/docs", headers={"Host": "any.example", "Origin": EVIL})).status_code == 403


@pytest.mark.parametrize("keys", ["off", "required"])
async def test_an_allowed_origin_is_told_so_and_no_other_is(keys: str) -> None:
    async with opened(origins=APP, keys=keys) as client:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,prefer"}
        answer = await client.options("/generate", headers={"Origin": APP, **CROSS, **asked})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == APP
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"].lower()
        refused = await client.get("/nothing", headers={"Origin": APP, **CROSS})
        assert refused.headers["Access-Control-Allow-Origin"] == APP, "a page reads why it was refused"
        assert "Retry-After" in refused.headers["Access-Control-Expose-Headers"]
        other = await client.options("/generate", headers={"Origin": EVIL, **CROSS, **asked})
        assert other.status_code >= 400
        assert "Access-Control-Allow-Origin" not in other.headers
