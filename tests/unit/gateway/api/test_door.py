"""What is refused at the door: with its own code, with advice, and with nothing left behind."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.gateway.conftest import left_behind
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.submit.images.test_check import HOSTILE

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]


Refuse = Callable[[httpx.Response], dict[str, Any]]


@pytest.fixture
async def refuse(client: httpx.AsyncClient, data_dir: Path) -> AsyncIterator[Refuse]:
    """Checks that an answer is a readable refusal; afterwards, that no job and no file came of the test."""

    def check(answer: httpx.Response) -> dict[str, Any]:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = json.loads(answer.text)
        assert problem["status"] == answer.status_code
        assert problem["detail"]
        return problem

    yield check
    assert left_behind(data_dir) == []
    assert (await client.get("/v1/jobs")).json()["data"] == []


@pytest.mark.parametrize(("data", "code"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_upload_is_refused_in_both_encodings(
    client: httpx.AsyncClient, refuse: Refuse, data: bytes, code: str
) -> None:
    form = await client.post("/generate", files={"image": ("cat.png", data, "image/png")})
    assert refuse(form)["code"] in (code, "body_too_large")
    text = base64.b64encode(data).decode()
    if text:
        answer = await client.post("/generate", json={"image": text})
        assert refuse(answer)["code"] in (code, "body_too_large")


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "application/json"])
@pytest.mark.parametrize("declared", [True, False])
async def test_fifty_megabytes_are_refused_before_they_are_read(
    client: httpx.AsyncClient, refuse: Refuse, kind: str, declared: bool
) -> None:
    read = 0
    read_when_answered: list[int] = []
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        yield part + bytes(2**20 - len(part))
        for _ in range(49):
            read += 2**20
            yield bytes(2**20)

    transport = client._transport  # what a client sees only at the end, the app does at a moment that counts
    assert isinstance(transport, httpx.ASGITransport)
    app = transport.app

    async def spying(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            read_when_answered.append(read)
            await send(message)

        await app(scope, receive, note)

    headers = {"Content-Type": kind} | ({"Content-Length": str(50 * 2**20)} if declared else {})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(spying), base_url="http://localhost") as spied:
        problem = refuse(await spied.post("/generate", content=body(), headers=headers))
    assert (problem["status"], problem["code"]) == (413, "body_too_large")
    assert read_when_answered[0] <= (0 if declared else 42 * 2**20)  # two pictures of 20 MiB and the rest


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ({}, "nothing_to_animate", "`prompt`"),
        ({"instruction": "dramatic"}, "nothing_to_animate", "`image`"),
        ({"prompt": "x", "colour": "red"}, "invalid_request", "body.colour: There is no such field"),
        ({"prompt": "x", "num_frames": 0}, "invalid_request", "4k+1 frames from 5 to 81"),
        ({"prompt": "x", "num_frames": 10_000}, "num_frames_not_usable", "81"),
        ({"prompt": "x", "width": 17, "height": 64}, "size_not_multiple", "64x64"),
        ({"prompt": "x", "size": "17 by 64"}, "invalid_request", "256x192"),
        ({"prompt": "x", "model": "sora"}, "unknown_model", "tiny-wan"),
        ({"prompt": "x", "steps": 0}, "invalid_request", "1 to 50 steps"),
        ({"prompt": "x", "steps": "many"}, "invalid_request", "1 to 50 steps"),
        ({"prompt": "x", "seed": -1}, "invalid_request", "body.seed"),
        ({"prompt": ""}, "invalid_request", "body.prompt"),
        ({"prompt": " \n\u3000"}, "invalid_request", "body.prompt: There are only blanks: write words"),
        ({"prompt": "x" * 4001}, "invalid_request", "body.prompt"),
        ({"prompt": "x", "sampler": "magic"}, "unknown_sampler", "unipc"),
        ({"image": "https://example.com/cat.png"}, "image_url_not_allowed", "web address"),
        ([1, 2], "invalid_request", "body"),
    ],
)
async def test_a_json_request_that_cannot_be_served_is_refused_with_what_can(
    client: httpx.AsyncClient, refuse: Refuse, body: Any, code: str, named: str
) -> None:
    problem = refuse(await client.post("/generate", json=body))
    assert (problem["status"], problem["code"]) == (422, code)
    assert named in problem["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", None, 422, "empty_body"), (b"", "application/json", 422, "empty_body"),
        (b"{", "application/json", 422, "invalid_request"), (b"\xff\xfe", "application/json", 422, "invalid_request"),
        (b"prompt=%ff", "application/x-www-form-urlencoded", 422, "invalid_request"),
        (b"hello", "text/plain", 415, "unsupported_media_type"),
        (b"nonsense", "multipart/form-data", 422, "form_unreadable"),
        (b"nonsense", "multipart/form-data; boundary=b", 422, "form_unreadable"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    client: httpx.AsyncClient, refuse: Refuse, content: bytes, kind: str | None, status: int, code: str
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    problem = refuse(await client.post("/generate", content=content, headers=headers))
    assert (problem["status"], problem["code"]) == (status, code)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"colour": "red", "prompt": "x"}, "invalid_request"), ({"prompt": ["one", "two"]}, "field_given_twice"),
        ({"prompt": "x", "metadata": "{"}, "metadata_unreadable"),
        ({"prompt": "x", "steps": "many"}, "invalid_request"),
        ({"prompt": "", "seed": ""}, "nothing_to_animate"),
    ],
)
async def test_a_form_that_cannot_be_served_is_refused(
    client: httpx.AsyncClient, refuse: Refuse, fields: dict[str, Any], code: str
) -> None:
    files = {"image": ("", b"")}  # as a browser sends a file field that was left empty
    assert refuse(await client.post("/generate", data=fields, files=files))["code"] == code


async def test_a_second_file_and_a_file_of_another_name_are_refused(
    client: httpx.AsyncClient, refuse: Refuse, picture: Callable[..., bytes]
) -> None:
    two = [("image", ("a.png", picture())), ("image", ("b.png", picture()))]
    assert refuse(await client.post("/generate", files=two))["code"] in ("form_unreadable", "image_given_twice")
    other = await client.post("/generate", files={"picture": ("a.png", picture())})
    assert refuse(other)["code"] == "unexpected_file"


async def test_the_describing_route_checks_pictures_in_the_same_way(
    client: httpx.AsyncClient, refuse: Refuse, services: Services
) -> None:
    body = {"image": base64.b64encode(HOSTILE["text"][0]).decode(), "tasks": [{"kind": "caption"}]}
    assert refuse(await client.post("/v1/describe", json=body))["code"] == "image_format_unsupported"
    assert refuse(await client.post("/v1/describe", json={"tasks": []}))["code"] == "invalid_request"
    assert services.script.describe_calls == []


async def test_the_describing_route_passes_a_sound_picture_on(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes]
) -> None:
    body = {
        "image": "data:image/jpeg;base64," + base64.b64encode(picture(kind="JPEG")).decode(),
        "tasks": [{"kind": "caption"}, {"kind": "question", "question": "Is it day?"}],
    }
    answer = (await client.post("/v1/describe", json=body)).json()
    assert [result["text"] for result in answer["results"]] == ["a grey cat on a sill", "yes"]
    passed_on = services.script.describe_calls[0].image
    assert passed_on is not None
    assert passed_on.startswith(b"\xff\xd8"), "the checked picture"


async def test_the_describing_route_takes_a_form_and_answers_with_every_kind_of_text(
    client: httpx.AsyncClient, services: Services, refuse: Refuse, picture: Callable[..., bytes]
) -> None:
    files = {"image": ("cat.jpg", picture(kind="JPEG"))}
    answer = await client.post("/v1/describe", files=files, data={"question": "Is it day?", "language": "zh"})
    assert answer.status_code == 200, answer.text
    kinds = ["caption", "prompt", "edit_suggestion", "question"]
    assert [result["kind"] for result in answer.json()["results"]] == kinds
    passed_on = services.script.describe_calls[0]
    assert (passed_on.language, passed_on.tasks[3].question) == ("zh", "Is it day?")
    assert passed_on.image is not None
    assert passed_on.image.startswith(b"\xff\xd8")
    assert len((await client.post("/v1/describe", files=files)).json()["results"]) == 3, "no question, no answer"
    left_empty = await client.post("/v1/describe", data={"question": "Is it day?"}, files={"image": ("", b"")})
    assert refuse(left_empty)["code"] == "image_missing"
    other = await client.post("/v1/describe", files={"picture": files["image"]})
    assert refuse(other)["code"] == "unexpected_file"
    assert refuse(await client.post("/v1/describe", files=files, data={"colour": "red"}))["code"] == "invalid_request"
