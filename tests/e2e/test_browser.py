"""The MP4 plays and the API pages render in a real browser, with no request leaving the machine."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Request, expect

from tests.e2e.conftest import Gateway
from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow

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
