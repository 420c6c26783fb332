"""Bad input: a 4xx that says what to do, and nothing left behind."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.conftest import Gateway
from tests.e2e.stack import Stack

pytestmark = pytest.mark.slow

Request = dict[str, Any]


def png_header(width: int, height: int) -> bytes:
    """A PNG that names its size and breaks off there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))


def animated_gif() -> bytes:
    frames = [Image.new("RGB", (128, 128), colour) for colour in ("red", "blue", "green")]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return stream.getvalue()


def truncated_jpeg(cat: Path) -> bytes:
    stream = io.BytesIO()
    Image.open(cat).save(stream, "JPEG")
    return stream.getvalue()[: len(stream.getvalue()) // 2]


def picture(content: bytes, **fields: str) -> Request:
    return {"files": {"image": ("picture", content)}, "data": fields}


BAD: dict[str, Callable[[Path], Request]] = {
    "an empty body": lambda _: {"content": b""},
    "an empty JSON body": lambda _: {"content": b"", "headers": {"content-type": "application/json"}},
    "neither image nor prompt": lambda _: {"json": {}},
    "text as the image": lambda _: picture(b"this is not a picture, it is a sentence"),
    "a truncated JPEG": lambda cat: picture(truncated_jpeg(cat)),
    "a 30,000 x 30,000 PNG header": lambda _: picture(png_header(30_000, 30_000)),
    "an animated GIF": lambda _: picture(animated_gif()),
    "a 50 MB upload": lambda _: picture(b"\xff\xd8" + bytes(50_000_000)),
    "width 17": lambda cat: picture(cat.read_bytes(), width="17", height="64"),
    "0 frames": lambda cat: picture(cat.read_bytes(), num_frames="0"),
    "10,000 frames": lambda cat: picture(cat.read_bytes(), num_frames="10001"),
    "an unknown model": lambda cat: picture(cat.read_bytes(), model="no-such-model"),
    "an unknown field": lambda cat: picture(cat.read_bytes(), colour="blue"),
    "an unknown field in JSON": lambda _: {"json": {"prompt": "a kite", "colour": "blue"}},
    "base64 that is none": lambda _: {"json": {"image": "!!!"}},
}


def files_of_jobs(stack: Stack) -> set[str]:
    """Everything under the data folder but the databases and the logs."""
    kept = (path for path in stack.data.rglob("*") if path.is_file() and ".sqlite" not in path.name)
    return {str(path.relative_to(stack.data)) for path in kept if path.suffix not in {".log", ".lock"}}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_sentence_and_leaves_nothing_behind(
    gateway: Gateway, stack: Stack, cat: Path, name: str
) -> None:
    files_before = files_of_jobs(stack)
    jobs_before = gateway.http.get("/v1/jobs").json()
    answer = gateway.http.post("/generate", **BAD[name](cat))
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["code"]
    assert len(problem["detail"].split()) >= 4, f"no sentence: {problem['detail']}"
    assert gateway.http.get("/v1/jobs").json() == jobs_before
    assert files_of_jobs(stack) == files_before
