"""The page in real Chromium, before a live stack."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Gateway
from tests.e2e.stack import Stack
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
    page.locator("#sm-describe").click()
    expect(page.locator("#sm-suggestions button").first).to_be_visible()
    assert "cat" in visitor.words.input_value().lower()
    visitor.words.fill("The cat turns its head.")
    visitor.set_steps(30)
    job_id = visitor.generate()
    expect(page.locator("#sm-shown [role=progressbar]")).to_be_visible()
    page.reload()
    visitor.ready()
    assert visitor.shown_job() == job_id, "a reload takes the same job up"
    visitor.plays()
    job = gateway.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["original_prompt"], job["parameters"]["steps"]) == ("The cat turns its head.", 30)
    assert visitor.serious_faults() == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert not visitor.is_too_wide()
    visitor.tab("Gallery")
    card = page.locator(f'[data-card="{job_id}"]')
    card.locator("[data-delete]").click()
    expect(card).to_be_visible()
    card.locator("[data-delete]").click()
    expect(card).to_have_count(0)
    assert gateway.http.get(f"/v1/jobs/{job_id}").status_code == 404
    assert (visitor.elsewhere, visitor.broken) == ([], [])
