"""The docs page in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from gateway.auth.keys import KeyLimits, KeyStore
from gateway.database.database import Database
from tests.unit.gateway.conftest import gateway_settings, open_socket_client
from tests.unit.gateway.model_services import Services, running_services

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture
def services() -> Iterator[Services]:
    with running_services() as running:
        yield running


async def test_the_docs_page_loads_nothing_from_elsewhere_takes_a_key_and_starts_a_job(
    tmp_path: Path, services: Services
) -> None:
    settings = gateway_settings(tmp_path, services, keys="required")
    _, secret = KeyStore(Database(settings.jobs_database_url)).create("alice", KeyLimits())
    asked: list[str] = []
    errors: list[str] = []
    async with open_socket_client(settings) as client, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(f"{client.base_url}/docs")
        await page.locator(".auth-wrapper .authorize").first.click()
        await page.locator(".modal-ux input").first.fill(secret)
        await page.locator(".modal-ux .authorize").first.click()
        await page.locator(".modal-ux .btn-done").click()
        generate = page.locator("#operations-generate-generate")
        await generate.locator(".opblock-summary").click()
        await generate.locator(".try-out__btn").click()
        await generate.locator("tr[data-property-name=prompt]").locator("input, textarea").first.fill("a kite")
        await generate.locator(".execute").click()
        await expect(generate.locator(".live-responses-table")).to_contain_text("202")
        await browser.close()
        assert [url for url in asked if not url.startswith((str(client.base_url), "data:", "blob:"))] == []
        assert errors == []
        jobs = (await client.get("/v1/jobs", headers={"Authorization": f"Bearer {secret}"})).json()["data"]
        assert [job["original_prompt"] for job in jobs] == ["a kite"]
