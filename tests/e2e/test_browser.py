"""The MP4 plays in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.e2e.conftest import Gateway
from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow

# The last four keep the browser's own services from calling home.
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
