"""One running stack for all tests here that do not end it."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from gateway.cli.serving.demo import default_picture
from tests.checkpoints.tiny_wan import TINY_CARD, save_tiny_wan
from tests.e2e.stack import Stack, served, stack_environment

# The last four keep the browser's own services from calling home, which would look like our page's requests.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the Wan layout; allows renders that last some seconds, to have a middle to be killed in."""
    card = TINY_CARD | {"max_pixels": 256 * 256}
    return save_tiny_wan(tmp_path_factory.mktemp("models") / "tiny", card=card)


@pytest.fixture(scope="session")
def stack(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three real processes under `stillmotion serve`; a dead service is noticed soon."""
    folder = tmp_path_factory.mktemp("stack")
    quick = {"GATEWAY_PROBE_S": "1", "GATEWAY_CONNECT_TIMEOUT_S": "1"}
    with served(stack_environment(tiny_checkpoint, folder / "data", **quick), folder) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def gateway(stack: Stack) -> Iterator["Gateway"]:
    """A client of the shared stack, which is ready when the test begins."""
    stack.wait_ready()
    with httpx.Client(base_url=stack.url, timeout=60, trust_env=False) as http:
        yield Gateway(http)


@pytest.fixture(scope="session")
def cat() -> Path:
    """A real photograph."""
    return default_picture()


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


class Gateway:
    """The public API in the verbs of these tests."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def submit(self, picture: Path | None, **fields: str) -> dict[str, Any]:
        """Post a picture; the accepted job."""
        files = {"image": (picture.name, picture.read_bytes())} if picture else None
        answer = self.http.post("/generate", data=fields, files=files) if files else self.http.post(
            "/generate", json=fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        """The job as it is now."""
        return self.http.get(job["urls"]["self"]).json()

    def wait_for_step(self, job: dict[str, Any], step: int, limit_s: float = 120) -> dict[str, Any]:
        """The job once it has done `step` denoising steps and still renders."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            job = self.look(job)
            assert job["state"] in ("queued", "running"), job
            if job["progress"]["stage"] == "rendering" and job["progress"]["step"] >= step:
                return job
            time.sleep(0.02)
        raise AssertionError(f"no step {step} within {limit_s} s: {job}")

    def wait_for_end(self, job: dict[str, Any], limit_s: float = 180) -> dict[str, Any]:
        """The job once it has ended."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            job = self.http.get(job["urls"]["self"], params={"wait": 10}).json()
            if job["state"] not in ("queued", "running"):
                return job
        raise AssertionError(f"not ended within {limit_s} s: {job}")

    def render(self, picture: Path | None, **fields: str) -> dict[str, Any]:
        """Submit and wait; the ended job."""
        return self.wait_for_end(self.submit(picture, **fields))

    def video(self, job: dict[str, Any]) -> bytes:
        """The bytes of a completed job's MP4."""
        answer = self.http.get(job["urls"]["content"])
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "video/mp4"
        return answer.content
