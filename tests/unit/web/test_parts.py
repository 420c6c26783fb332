"""A request with images crosses the inner wire as JSON and bytes, and arrives as it was sent."""

import base64
import json
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from contracts.models import Health
from contracts.wire import ImageBytes, ImageRequest
from gateway.services.clients import multipart
from web.parts import sent
from web.problems import install_problem_handlers

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8000  # every byte, and more than is kept in memory by default
URL = "http://service/"


class Ask(ImageRequest):
    words: str
    seed: int = 0
    image: ImageBytes | None = None
    last_image: ImageBytes | None = None


@pytest.fixture
def arrived() -> list[Ask]:
    return []


@pytest.fixture
def http(arrived: list[Ask]) -> httpx.AsyncClient:
    app = FastAPI()
    install_problem_handlers(app)

    @app.post("/")
    def ask(asked: Annotated[Ask, Depends(sent(Ask))]) -> Health:
        arrived.append(asked)
        return Health(ready=True)

    return httpx.AsyncClient(transport=httpx.ASGITransport(app))


@pytest.mark.parametrize("images", [{}, {"image": PNG}, {"image": PNG, "last_image": b"\xff\xd8 a JPEG"}])
async def test_what_is_sent_arrives(http: httpx.AsyncClient, arrived: list[Ask], images: dict[str, bytes]) -> None:
    asked = Ask.model_validate({"words": "ä cat", "seed": 7} | images)
    answer = await http.post(URL, **multipart(asked))
    assert answer.status_code == 200, answer.text
    assert arrived == [asked]
    assert arrived[0].digest() == asked.digest()


async def test_an_image_in_base64_is_understood_for_an_earlier_gateway(
    http: httpx.AsyncClient, arrived: list[Ask]
) -> None:
    await http.post(URL, json={"words": "a cat", "image": base64.b64encode(PNG).decode()})
    assert arrived == [Ask(words="a cat", image=PNG)]


@pytest.mark.parametrize(("body", "field"), [
    ({"content": b"{"}, "body"), ({"json": {"words": 1}}, "body.words"), ({"json": {"words": "", "a": 1}}, "body.a"),
    ({"json": {"words": "", "image": "!"}}, "body.image"), ({"files": {"image": ("image", PNG)}}, "body"),
    ({"files": {"request": (None, b'{"words": 1}'), "image": ("image", PNG)}}, "body.words"),
    ({"files": {"request": (None, b'{"words": ""}'), "other": ("other", PNG)}}, "body.other"),
    ({"files": {"request": (None, b'{"words": ""}'), "image": ("image", PNG * 11)}}, "body.image"),
])
async def test_what_does_not_fit_is_refused_by_field(http: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    answer = await http.post(URL, **body)
    assert (answer.status_code, [one["field"] for one in answer.json()["errors"]]) == (422, [field]), answer.text


async def test_what_is_no_multipart_is_refused(http: httpx.AsyncClient) -> None:
    kind = "multipart/form-data; boundary=x"
    for body, head in ((b"nothing of the kind", kind), (b"--x", "multipart/form-data")):
        answer = await http.post(URL, content=body, headers={"Content-Type": head})
        assert answer.status_code == 400, answer.text


def test_every_image_and_every_word_is_in_the_digest_and_no_default_is() -> None:
    one = Ask(words="a", image=PNG)
    others = [Ask(words="b", image=PNG), Ask(words="a", image=PNG[:-1]), Ask(words="a", last_image=PNG), Ask(words="a"),
              Ask(words="a", image=PNG, last_image=PNG)]
    assert len({ask.digest() for ask in (one, *others)}) == 6
    assert one.digest() == Ask(words="a", image=PNG, seed=0, last_image=None).digest()
    assert json.loads(one.words_json()) == {"words": "a"}
