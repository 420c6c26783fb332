"""Who may use the page, and what passes through it: a real page before a scripted gateway."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from studio import app as studio_app
from studio.door import KEY_COOKIE
from studio.settings import StudioSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
GOOD = "sm_good"


def gateway(request: httpx.Request) -> httpx.Response:
    """Takes one key; has one video."""
    if request.headers.get("authorization") != f"Bearer {GOOD}":
        problem = {"title": "A key is required", "status": 401, "detail": "This key is not known here.",
                   "code": "key_required"}
        return httpx.Response(401, content=json.dumps(problem))
    if request.url.path.endswith("/content"):
        ranged = request.headers.get("range") == "bytes=0-3"
        body = httpx.ByteStream(b"vide" if ranged else b"video!")
        return httpx.Response(206 if ranged else 200, stream=body, headers={
            "etag": '"1"', "content-type": "video/mp4", "set-cookie": "a=b"})
    return httpx.Response(200, json={"data": []})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[httpx.AsyncClient]:
    transport, client = httpx.MockTransport(gateway), httpx.AsyncClient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio_app.httpx, "AsyncClient", lambda **given: client(transport=transport, **given))
        app = studio_app.create_app(StudioSettings.model_validate({"hosts": "studio.example"}))
    async with client(transport=httpx.ASGITransport(app), base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
def browser(page: httpx.AsyncClient) -> httpx.AsyncClient:
    page.cookies.clear()
    page.headers["accept"] = "text/html"
    return page


async def test_who_has_no_key_is_led_to_the_login_and_sees_no_file(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/en/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert (await browser.get("/media/job_1/video", headers={"accept": "video/mp4"})).status_code == 401
    assert (await browser.get("/en/gradio_api/info", headers={"accept": "*/*"})).status_code == 401
    assert (await browser.get("/readyz")).status_code == 200


async def test_a_key_is_kept_in_a_cookie_that_no_script_and_no_other_site_reads(browser: httpx.AsyncClient) -> None:
    wrong = await browser.post("/login", content="key=sm_wrong")
    assert (wrong.status_code, "This key is not known here." in wrong.text) == (401, True)
    assert KEY_COOKIE not in wrong.headers.get("set-cookie", "")
    right = await browser.post("/login", content=f"key={GOOD}")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (await browser.get("/en/")).status_code == 200
    assert GOOD not in (await browser.get("/en/")).text
    assert (await browser.get("/session")).json() == {"has_key": True}
    assert (await browser.post("/logout")).headers["location"] == "/login"
    assert (await browser.get("/en/")).status_code == 303


async def test_a_file_passes_with_its_range_and_nothing_that_was_not_asked_for(browser: httpx.AsyncClient) -> None:
    browser.cookies.set(KEY_COOKIE, GOOD)
    part = await browser.get("/media/job_1/video", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content, part.headers["etag"]) == (206, b"vide", '"1"')
    assert "set-cookie" not in part.headers
    assert (await browser.get("/media/job_1/spritesheet")).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:7861"}, 200), ({"host": "127.0.0.1"}, 200), ({"host": "studio.example"}, 200),
        ({"host": "evil.example"}, 403), ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
async def test_no_other_site_and_no_borrowed_name_uses_it(
    browser: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    browser.cookies.set(KEY_COOKIE, GOOD)
    assert (await browser.get("/en/", headers=headers)).status_code == status


async def test_the_first_language_that_it_speaks_is_the_pages(browser: httpx.AsyncClient) -> None:
    browser.cookies.set(KEY_COOKIE, GOOD)
    for wanted, led in (("zh-CN,en", "/zh/?job=1"), ("fr,en", "/en/?job=1"), ("", "/en/?job=1")):
        answer = await browser.get("/?job=1", headers={"accept-language": wanted})
        assert answer.headers["location"] == led
