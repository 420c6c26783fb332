"""The page in real Chromium, before a live stack."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio.tongues import ENGLISH
from tests.e2e.conftest import Gateway
from tests.e2e.stack import STILLMOTION, Stack, free_ports, served, stack_environment
from tests.e2e.studio import Visitor, served_studio

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio_url(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_studio(stack.url, tmp_path_factory.mktemp("studio")) as url:
        yield url


@pytest.fixture
def visitor(page: Page, studio_url: str, gateway: Gateway) -> Visitor:
    assert gateway.http is not None  # it is ready
    return Visitor(page, studio_url)


def test_a_picture_becomes_a_video_that_is_found_again_and_deleted(
    visitor: Visitor, gateway: Gateway, cat: Path
) -> None:
    page = visitor.page
    visitor.open()
    visitor.drop(cat)
    visitor.choose_template("Slow pull out")
    page.locator("#sm-describe").click()
    expect(page.locator("#sm-suggestions button").first).to_be_visible()
    described = visitor.words.input_value().lower()
    assert "cat" in described
    assert "the camera slowly zooms out" in described, "as the template says"
    visitor.choose_template("Gentle wind")
    visitor.words.fill("The cat turns its head.")
    visitor.set_steps(30)
    page.set_viewport_size({"width": 390, "height": 844})
    job_id = visitor.generate()
    expect(page.locator("#sm-shown [role=progressbar]")).to_be_in_viewport()
    page.reload()
    visitor.ready()
    assert visitor.shown_job() == job_id, "a reload takes the same job up"
    visitor.plays()
    job = gateway.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["original_prompt"], job["parameters"]["steps"]) == ("The cat turns its head.", 30)
    assert "A gentle wind" in job["actual_prompt"]
    assert visitor.serious_faults() == []
    assert not visitor.is_too_wide()
    visitor.tab("Server")
    expect(page.locator("#sm-server [data-column=Device]").first).to_have_text("cpu")
    visitor.tab("Gallery")
    card = page.locator(f'[data-card="{job_id}"]')
    card.locator("[data-delete]").click()
    expect(card).to_be_visible()
    card.locator("[data-delete]").click()
    expect(card).to_have_count(0)
    assert gateway.http.get(f"/v1/jobs/{job_id}").status_code == 404
    assert (visitor.elsewhere, visitor.broken) == ([], [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What `stillmotion serve` is by default: the embedded models, and the page."""
    folder = tmp_path_factory.mktemp("whole")
    port = str(free_ports(1)[0])
    environment = stack_environment(Path("embedded"), folder / "data", GATEWAY_PROBE_S="1", STUDIO_PORT=port)
    with served(environment, folder) as running:
        running.wait_ready()
        yield running


def page_of(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.environment['STUDIO_PORT']}"


@pytest.mark.full
def test_the_gateways_address_leads_to_a_page_that_is_there_within_two_seconds(page: Page, whole: Stack) -> None:
    page.goto(whole.url)
    Visitor(page, page_of(whole)).ready()
    assert page.url.startswith(f"{page_of(whole)}/en/")
    page.reload()
    Visitor(page, page_of(whole)).ready()
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert painted < 2000, f"first paint after {painted} ms"


@pytest.mark.full
def test_a_server_that_is_down_in_mid_render_is_one_sentence_and_then_the_video(
    page: Page, whole: Stack, cat: Path
) -> None:
    visitor = Visitor(page, page_of(whole))
    visitor.open()
    visitor.drop(cat)
    visitor.set_steps(12)
    visitor.generate()
    gateway = whole.pid_of("gateway")
    assert gateway is not None
    os.kill(gateway, signal.SIGKILL)
    notice = page.locator("#sm-shown .sm-bad")
    expect(notice).to_have_text(ENGLISH["outage"])
    visitor.plays()
    assert "Traceback" not in page.locator("body").inner_text()
    assert visitor.broken == []


@pytest.mark.full
def test_by_keyboard_alone_and_on_from_the_last_frame(page: Page, whole: Stack, cat: Path) -> None:
    visitor = Visitor(page, page_of(whole))
    visitor.open()
    visitor.drop(cat)
    visitor.words.focus()
    page.keyboard.type("The camera slowly zooms in.")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "sm-generate":
            break
    expect(page.get_by_role("option")).to_have_count(0)  # of a list that was passed on the way
    page.keyboard.press("Enter")
    page.wait_for_url("**job=*")
    visitor.plays()
    before = page.locator("#sm-picture img").get_attribute("src")
    page.locator("#sm-take-frame").press("Enter")
    page.wait_for_function("(src) => document.querySelector('#sm-picture img')?.src !== src", arg=before)
    first, length = visitor.shown_job(), page.evaluate("document.querySelector('#sm-shown video').duration")
    page.locator("#sm-continue").press("Enter")
    page.wait_for_url(lambda url: "job=" in url and first not in url)
    visitor.plays()
    assert page.evaluate("document.querySelector('#sm-shown video').duration") > 1.5 * length


@pytest.mark.full
def test_a_dialogue_is_rendered_and_every_page_is_accessible_in_both_languages_and_schemes(
    page: Page, whole: Stack
) -> None:
    visitor = Visitor(page, page_of(whole))
    visitor.open()
    visitor.tab("Chat")
    for said in ("A red balloon rises.", "Make it slower."):
        page.locator("#sm-message textarea").fill(said)
        page.locator("#sm-send").click()
        expect(page.locator("#sm-talk-prompt textarea")).to_have_value(re.compile(re.escape(said[:-1])))
    page.locator("#sm-talk-render").click()
    visitor.plays()
    for path, scheme in (("/en/", "light"), ("/zh/", "dark")):
        page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType] - one of the two
        visitor.open(path)
        for tab in page.get_by_role("tab").all():
            tab.click()
            page.wait_for_timeout(1000)
            assert visitor.serious_faults() == [], (path, scheme, tab.inner_text())


@pytest.mark.full
def test_two_people_with_two_keys_see_only_their_own(
    page: Page, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    environment = stack_environment(
        tiny_checkpoint, tmp_path / "data", GATEWAY_KEYS="required", STUDIO_PORT=str(free_ports(1)[0]))
    commands = [[STILLMOTION, "keys", "create", "--new", name] for name in ("ann", "ben")]
    made = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            for command in commands]
    keys = [re.search(r"sm_[\w-]+", one.stdout + one.stderr) for one in made]
    with served(environment, tmp_path) as stack:
        stack.wait_ready()
        jobs = []
        for key in keys:
            assert key is not None
            context = page.context.browser.new_context()  # pyright: ignore[reportOptionalMemberAccess] - it has one
            visitor = Visitor(context.new_page(), page_of(stack))
            visitor.page.goto(visitor.url)
            visitor.page.locator("#key").fill("sm_nobody")
            visitor.page.get_by_role("button").click()
            expect(visitor.page.get_by_role("alert")).not_to_be_empty()
            visitor.page.locator("#key").fill(key[0])
            visitor.page.get_by_role("button").click()
            visitor.ready()
            visitor.words.fill("A red balloon.")
            jobs.append(visitor.generate())
            visitor.plays()
            visitor.tab("Gallery")
            expect(visitor.page.locator("[data-card]")).to_have_count(1)
            assert visitor.page.request.get(f"{visitor.url}/media/{jobs[0]}/video").status == (
                200 if len(jobs) == 1 else 404)
            assert key[0] not in visitor.page.content()
            visitor.page.get_by_role("button", name=ENGLISH["log_out"]).click()
            expect(visitor.page.locator("#key")).to_be_visible()
            context.close()
