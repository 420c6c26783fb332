"""The MP4 plays in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Page

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
