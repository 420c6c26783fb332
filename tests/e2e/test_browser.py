"""The MP4 plays and the API pages render in a real browser, with no request leaving the machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, expect, sync_playwright

from tests.e2e.conftest import Gateway
from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow

# The last four keep the browser's own services from calling home, which would look like our page's requests.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
PLAY = """async (video) => {
    video.muted = true;
    const ended = new Promise((resolve, reject) => {
        video.onended = resolve;
        video.onerror = () => reject(new Error(video.error.message));
    });
    await video.play();
    await ended;
    return {width: video.videoWidth, height: video.videoHeight, seconds: video.duration, at: video.currentTime};
}"""


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of Debian's Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser.new_page()
        finally:
            browser.close()


def test_the_mp4_plays_from_its_url_to_its_end(page: Page, gateway: Gateway, stack: Stack, cat: Path) -> None:
    job = gateway.render(cat)
    page.goto(f"{stack.url}/livez")  # a page of the same origin to put the video into
    page.set_content(f'<video src="{stack.url}{job["urls"]["content"]}" preload="auto"></video>')
    seen = page.locator("video").evaluate(PLAY)
    said = job["video"]
    assert (seen["width"], seen["height"]) == (said["width"], said["height"])
    assert seen["seconds"] == pytest.approx(said["duration_s"], abs=0.1)
    assert seen["at"] == pytest.approx(seen["seconds"], abs=0.1)


def test_the_api_pages_render_and_ask_no_other_machine(page: Page, gateway: Gateway, stack: Stack) -> None:
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(f"{stack.url}/docs")
    expect(page.locator(".opblock-summary-path", has_text="/generate").first).to_be_visible(timeout=20_000)
    assert {urlsplit(request.url).netloc for request in asked if not request.url.startswith("data:")} == {
        urlsplit(stack.url).netloc
    }
    assert broken == []
