"""The page before a running gateway, and what a visitor does on it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import axe_playwright_python
import httpx
from playwright.sync_api import Locator, Page, expect

from tests.e2e.stack import free_ports
from web.worker.lifeline import die_with_parent

_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
_RULES = "axe.run({runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}})"
_LIMIT_MS = 240_000


@contextmanager
def served_studio(gateway_url: str, folder: Path) -> Iterator[str]:
    """`python -m studio` until the block ends; its address."""
    port = free_ports(1)[0]
    environment = os.environ | {"STUDIO_PORT": str(port), "STUDIO_GATEWAY_URL": gateway_url, "TMPDIR": str(folder)}
    with (folder / "studio.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio"], env=environment, stdout=log, stderr=log,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                    break
            time.sleep(0.1)
        else:
            raise AssertionError((folder / "studio.log").read_text()[-4000:])
        yield url
    finally:
        process.terminate()
        process.wait(20)


class Visitor:
    """Somebody in front of the page. What the page asks of other machines, and its errors, are collected."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.elsewhere: list[str] = []
        self.broken: list[str] = []
        page.set_default_timeout(_LIMIT_MS)
        expect.set_options(timeout=_LIMIT_MS)
        page.on("request", lambda request: self._note(request.url))
        page.on("pageerror", lambda error: self.broken.append(str(error)))

    def _note(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(url)

    def open(self, path: str = "/en/") -> None:
        """Open the page, and wait until it can be used."""
        self.page.goto(self.url + path)
        self.ready()

    def ready(self) -> None:
        """Wait until the page can be used."""
        expect(self.page.locator("#sm-generate")).to_be_visible()
        expect(self.page.locator("html.sm-loading")).to_have_count(0)

    def drop(self, picture: Path) -> None:
        """Put a picture in."""
        self.page.locator("#sm-picture input[type=file]").set_input_files(picture)
        expect(self.page.locator("#sm-picture img")).to_be_visible()

    @property
    def words(self) -> Locator:
        """Where the prompt is written."""
        return self.page.locator("#sm-words textarea")

    @property
    def video(self) -> Locator:
        """Of the result."""
        return self.page.locator("#sm-shown video")

    def choose_template(self, title: str) -> None:
        """One of those that the server lists."""
        self.page.locator("#sm-template input").click()
        self.page.get_by_role("option", name=title).click()

    def set_steps(self, steps: int) -> None:
        """Under More, once its bounds came from the server."""
        self.page.locator("#sm-more > button").click()
        expect(self.page.locator("#sm-model input")).not_to_have_value("")
        field = self.page.locator("#sm-steps input[type=number]")
        field.fill(str(steps))
        field.press("Tab")

    def generate(self) -> str:
        """Press Generate; the job's id, once the page shows it."""
        self.page.locator("#sm-generate").click()
        self.page.wait_for_url("**job=*")
        return self.shown_job()

    def shown_job(self) -> str:
        """The id of the job that the panel shows."""
        return str(self.page.locator("#sm-shown [data-job]").get_attribute("data-job"))

    def plays(self) -> None:
        """The result's video moves on."""
        expect(self.video).to_be_visible()
        self.video.scroll_into_view_if_needed()  # a muted one plays where it is looked at
        self.page.wait_for_function("document.querySelector('#sm-shown video').currentTime > 0.05")

    def tab(self, name: str) -> None:
        """Go to a tab."""
        self.page.get_by_role("tab", name=name).click()

    def serious_faults(self) -> list[str]:
        """What axe-core finds serious or critical in what is shown now."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate(_RULES)["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found
                if one["impact"] in ("serious", "critical")]

    def is_too_wide(self) -> bool:
        """Whether the page scrolls sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))
