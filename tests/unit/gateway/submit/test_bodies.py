"""A body says the same in every encoding and dialect, and what cannot be kept or read is refused by one rule."""

import base64
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest

from gateway.submit.fields import BodyRefused, read_object
from gateway.submit.images.refusals import ImageRefused
from gateway.submit.intake import Intake
from gateway.submit.picture_text import decode_text
from tests.unit.gateway.model_services import Services

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
WORDS = {"Content-Type": "application/x-www-form-urlencoded"}
FORM = {"Content-Type": "multipart/form-data; boundary=X"}


def part(name: str, data: bytes, more: str = "") -> bytes:
    return f'--X\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data + b"\r\n"


SAME_WORDS: dict[str, tuple[dict[str, str], bytes]] = {
    "JSON": (JSON, '{"prompt": "ein Fluß 🐈"}'.encode()),
    "JSON with escapes": (JSON, b'{"prompt": "ein Flu\\u00df \\ud83d\\udc08"}'),
    "JSON behind a byte order mark": (JSON, b"\xef\xbb\xbf" + '{"prompt": "ein Fluß 🐈"}'.encode()),
    "curl -d": (WORDS, "prompt=ein Fluß 🐈".encode()),
    "curl --data-urlencode": (WORDS, b"prompt=" + quote("ein Fluß 🐈").encode()),
    "a browser's form": (WORDS, b"seed=&prompt=" + quote_plus("ein Fluß 🐈").encode()),
    "curl -F": (FORM, part("prompt", "ein Fluß 🐈".encode()) + b"--X--\r\n"),
    "curl -F of a file with a mark": (FORM, part("prompt", "\ufeffein Fluß 🐈".encode()) + b"--X--"),
}


@pytest.mark.parametrize("kind", SAME_WORDS)
@pytest.mark.parametrize("path", ["/generate", "/v1/videos"])
async def test_the_same_words_in_every_encoding(client: httpx.AsyncClient, path: str, kind: str) -> None:
    headers, body = SAME_WORDS[kind]
    answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    said = answer.json()
    assert said.get("original_prompt", said.get("prompt")) == "ein Fluß 🐈"


@pytest.mark.parametrize("kind", ["no filename", "no filename, image/jpeg", "data URI of megabytes", "base64", "file"])
@pytest.mark.parametrize(("path", "field"), [("/generate", "image"), ("/v1/videos", "input_reference")])
async def test_the_same_picture_in_every_kind_of_part(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes], path: str, field: str, kind: str
) -> None:
    data = picture(400, 300, "JPEG", quality=100)
    text = base64.b64encode(data)
    more, sent = {
        "no filename": ("", data), "no filename, image/jpeg": ("\r\nContent-Type: image/jpeg", data),
        "data URI of megabytes": ("", b"data:image/jpeg;base64," + text + b"\n" * 2_000_000),
        "base64": ("", text), "file": ('; filename="a.jpg"', data),
    }[kind]
    body = part("prompt", b"it moves") + part(field, sent, more) + b"--X--\r\n"
    answer = await client.post(path, content=body, headers=FORM)
    assert answer.status_code in (200, 202), answer.text
    stored = await client.get(f"/v1/jobs/{answer.json()['id']}/content?variant=input")
    assert stored.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize(("path", "field"), [
    ("/generate", "image"), ("/v1/videos", "input_reference"), ("/v1/describe", "image"), ("/v1/files", "file"),
])
async def test_a_form_that_breaks_off_is_refused_wherever_it_ends(
    client: httpx.AsyncClient, picture: Callable[..., bytes], path: str, field: str
) -> None:
    whole = part("prompt", b"a ball") + part(field, picture(), '; filename="a.png"') + b"--X--"
    if path == "/v1/files":
        whole = whole[whole.index(b"--X", 3):]
    for end in (len(whole) - 1, len(whole) - 2, len(whole) - 7, len(whole) // 2, 70, 20):
        answer = await client.post(path, content=whole[:end], headers=FORM)
        assert answer.status_code == (400 if path == "/v1/videos" else 422), (end, answer.text)


REFUSED_TEXT: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "GBK in a form": ("POST", "/generate", FORM, part("prompt", "我要".encode("gbk")) + b"--X--"),
    "Latin-1 in curl -d": ("POST", "/generate", WORDS, b"prompt=Flu\xdf"),
    "Latin-1 as %xx": ("POST", "/generate", WORDS, b"prompt=Flu%DF"),
    "Latin-1 in JSON": ("POST", "/generate", JSON, b'{"prompt": "Flu\xdf"}'),
    "a lone surrogate": ("POST", "/generate", JSON, b'{"prompt": "\\ud83d"}'),
    "a surrogate as %xx": ("POST", "/generate", WORDS, b"prompt=%ED%A0%BD"),
    "U+0000 in JSON": ("POST", "/generate", JSON, b'{"prompt": "a\\u0000b"}'),
    "U+0000 deep in JSON": ("POST", "/generate", JSON, b'{"prompt": "a", "metadata": {"k\\u0000": "v"}}'),
    "U+0000 in a form": ("POST", "/generate", FORM, part("prompt", b"a\0b") + b"--X--"),
    "U+0000 in a form's metadata": ("POST", "/generate", FORM, part("metadata", b'{"k": "\\u0000"}') + b"--X--"),
    "U+0000 in curl -d": ("POST", "/generate", WORDS, b"prompt=a%00b"),
    "U+0000 in a remix": ("POST", "/v1/videos/job_x/remix", JSON, b'{"prompt": "\\u0000"}'),
    "U+0000 in a task": ("POST", "/v1/describe", JSON, b'{"tasks": [{"kind": "question", "question": "\\u0000?"}]}'),
}


@pytest.mark.parametrize("name", REFUSED_TEXT)
async def test_text_that_not_every_database_keeps_is_refused_at_the_door(client: httpx.AsyncClient, name: str) -> None:
    method, path, headers, body = REFUSED_TEXT[name]
    answer = await client.request(method, path, content=body, headers=headers)
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.status_code != 404 or "remix" in path


PICTURE = bytes(range(256)) * 3 + b"\xfb\xef\xff\xfe"
TEXT = base64.b64encode(PICTURE).decode()
DIALECTS = {
    "plain": TEXT, "data URI": f"data:image/png;base64,{TEXT}", "parameters": f"data:image/png;name=a;base64,{TEXT}",
    "capitals": f"DATA:image/png;BASE64,{TEXT}", "URL-safe": base64.urlsafe_b64encode(PICTURE).decode(),
    "no padding": TEXT.rstrip("="), "URL-safe without padding": base64.urlsafe_b64encode(PICTURE).decode().rstrip("="),
    "percent": quote(TEXT, safe=""), "percent in small letters": quote(TEXT, safe="").replace("%2B", "%2b"),
    "lines": "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    "lines with returns": "\r\n".join(TEXT[at : at + 64] for at in range(0, len(TEXT), 64)),
    "lines that a shell joined": " ".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    "plus that became a blank": TEXT.replace("+", " "), "blanks around": f"  {TEXT}\n",
    "a mark": f"\ufeff{TEXT}",
}


@pytest.mark.parametrize("name", DIALECTS)
async def test_base64_in_any_dialect_is_the_same_picture(name: str) -> None:
    assert decode_text(DIALECTS[name], 10_000) == PICTURE


@pytest.mark.parametrize("text", ["äöü=", "====", "data:image/png,abcd", "data:", "a", "%zz", "{}"])
async def test_what_is_no_base64_is_refused(text: str) -> None:
    if text == "====":
        assert decode_text(text, 100) == b""  # and a picture without bytes is refused as such
        return
    with pytest.raises(ImageRefused):
        decode_text(text, 100)


BULK: dict[str, bytes] = {
    "unknown fields": b"{" + b",".join(b'"f%d": 1' % n for n in range(300_000)) + b"}",
    "one list": b'{"prompt": [' + b"0," * 2_000_000 + b"0]}",
    "deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep enough for the parser": b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}",
    "escaped quotes": b'{"image": "' + b'\\"' * 2_000_000 + b'"}',
    "empty strings": b'{"a": [' + b'"",' * 1_000_000 + b'""]}',
    "long strings": b'{"a": [' + b",".join(b'"' + b"a" * 40_000 + b'"' for _ in range(100)) + b"]}",
    "blanks": b'{"prompt": "a"' + b" " * 4_000_000 + b"}",
    "many keys, one short": b"{" + b",".join(b'"%d":0' % n for n in range(20_000)) + b"}",
}


@pytest.mark.parametrize("name", BULK)
async def test_json_of_bulk_is_refused_before_anything_is_built_from_it(name: str) -> None:
    tracemalloc.start()
    with pytest.raises(BodyRefused):
        read_object(BULK[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


async def test_a_request_with_everything_in_it_is_no_bulk() -> None:
    asked = {"image": "A" * 27_000_000, "metadata": {f"k{n}": "v" * 512 for n in range(16)}, "prompt": "\\\"" * 2000}
    assert read_object(json.dumps(asked).encode()) == asked


async def test_an_answer_names_fifty_fields_at_most(client: httpx.AsyncClient) -> None:
    answer = await client.post("/generate", json={f"f{n}": n for n in range(300)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 50


@pytest.mark.parametrize(("path", "sent", "param"), [
    ("/v1/videos", {"files": {"input_reference": ("a.png", b"no picture")}, "data": {"prompt": "a"}},
     "input_reference"),
    ("/v1/videos", {"json": {"prompt": "a", "input_reference": {"image_url": "https://a.b/c"}}}, "input_reference"),
    ("/v1/videos", {"json": {"prompt": "a", "seconds": "much"}}, "seconds"),
    ("/v1/videos", {"files": {"prompt": (None, b"\xff")}}, "prompt"),
])
async def test_openais_param_is_the_field_that_was_sent(
    client: httpx.AsyncClient, path: str, sent: dict[str, Any], param: str
) -> None:
    answer = await client.post(path, **sent)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


async def test_bodies_share_the_disk_and_leave_nothing_on_it(
    client: httpx.AsyncClient, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(client._transport, httpx.ASGITransport)
    intake: Intake = client._transport.app.state.gateway.intake  # pyright: ignore[reportFunctionMemberAccess]
    monkeypatch.setattr(intake, "_disk_left", 2**20)
    answer = await client.post("/generate", files={"image": ("a.png", bytes(3 * 2**20))})
    assert (answer.status_code, answer.json()["code"]) == (503, "too_much_arrives")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await client.post("/generate", json={"prompt": "a kite"})).status_code == 202, "small ones need none"
    assert intake._disk_left == 2**20
    assert list((data_dir / "gateway" / "incoming").iterdir()) == []
