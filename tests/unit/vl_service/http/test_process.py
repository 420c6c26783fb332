"""The process as it is run: its settings from the environment, a checkpoint by hub id from a local cache, its end."""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr

from contracts.chat import ChatOptions, ImagePart, TextPart, Turn
from tests.support.photographs import photograph
from tests.support.processes import HTTP, free_port
from tests.unit.vl_service.qwen.tiny_qwen import save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import CannotReplyError, CheckpointError, Deadline, DeadlineExceededError
from vl_service.images import DecodedImage
from vl_service.qwen.backend import load_qwen
from vl_service.remote import load_remote
from vl_service.settings import Settings

SAID = [Turn(role="user", content=(ImagePart(), TextPart(text="What?"))),
        Turn(role="assistant", content=(TextPart(text="A cat."),)),
        Turn(role="user", content=(TextPart(text="Sure?"),))]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def running(
    environment: dict[str, str], *, port: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "vl_service"], env={**os.environ, **environment, "VL_PORT": str(port)})
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def wait_until(url: str, status: int, *, saying: str = "") -> httpx.Response:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        try:
            response = HTTP.get(url, timeout=20)
            if response.status_code == status and saying in response.text:
                return response
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} was not {status} in time")


def soon(seconds: float = 60) -> Deadline:
    return Deadline(at=time.monotonic() + seconds)


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A checkpoint, and where the service that found it by its hub id answers to the key `key`."""

    folder: Path
    url: str


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    place = tmp_path_factory.mktemp("tiny")
    saved = save_tiny_checkpoint("qwen2_5_vl", place / "saved")
    cached = place / "hub" / "hub" / "models--stillmotion--tiny"
    shutil.copytree(saved, cached / "snapshots" / REVISION)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(REVISION)
    environment = {"VL_MODEL": "stillmotion/tiny", "HF_HOME": str(place / "hub"), "HF_HUB_OFFLINE": "1",
                   "VL_DEVICE": "cpu", "VL_GREEDY": "1", "STILLMOTION_INTERNAL_TOKEN": "key",
                   "STILLMOTION_DATA": str(place)}
    with running(environment) as (_, url):
        wait_until(f"{url}/readyz", 200)
        yield Tiny(folder=saved, url=url)


@pytest.mark.slow
def test_a_hub_id_is_loaded_from_the_cache_with_its_revision(
    tiny: Tiny, photograph_base64: Callable[[str], str]
) -> None:
    key = {"Authorization": "Bearer key"}
    info = httpx.get(f"{tiny.url}/v1/models", headers=key).json()["data"][0]
    assert (info["id"], info["revision"]) == ("stillmotion/tiny", REVISION)
    response = httpx.post(f"{tiny.url}/v1/describe", timeout=60, headers=key, json={
        "image": photograph_base64("chelsea"), "tasks": [{"kind": "caption"}], "max_new_tokens": 8})
    assert response.status_code == 200, response.text


@pytest.mark.slow
def test_as_the_backend_of_another_its_words_are_those_of_the_same_model_in_this_process(
    tiny: Tiny, tmp_path: Path
) -> None:
    here = load_qwen(Settings(model=str(tiny.folder), device="cpu", greedy=True, data_dir=tmp_path))
    buffer = io.BytesIO()
    photograph("chelsea").resize((150, 100)).save(buffer, "JPEG", quality=95, subsampling=0)
    picture = DecodedImage.of(buffer.getvalue())
    url = tiny.url
    there = load_remote(Settings(remote_url=f"{url}/v1", remote_key=SecretStr("key"), greedy=True))
    assert there.info.id == "stillmotion/tiny"
    tasks = [prompt_task("a red balloon", max_new_tokens=12), prompt_task(kind="question", question="Who?",
                                                                          max_new_tokens=9)]
    [words, _] = there.describe(None, tasks, soon()).answers
    assert words.text == here.describe(None, tasks[:1], soon()).answers[0].text
    options = ChatOptions(max_new_tokens=10)
    # What the server saw was encoded once more; a flat picture survives that.
    flat = DecodedImage(rgb=Image.new("RGB", (112, 112), "white"), width=112, height=112)
    mine, theirs = (list(engine.chat(SAID, [flat], options, soon())) for engine in (here, there))
    assert "".join(piece.text for piece in mine) == "".join(piece.text for piece in theirs)
    assert (mine[-1].finish, mine[-1].prompt_tokens, mine[-1].completion_tokens) == (
        theirs[-1].finish, theirs[-1].prompt_tokens, theirs[-1].completion_tokens)
    assert there.describe(picture, tasks, soon()).answers[1].text
    with pytest.raises(CannotReplyError, match="4096 at most"):
        list(there.chat([Turn(role="user", content=(TextPart(text="a" * 5000),))], [], options, soon()))
    with pytest.raises(CheckpointError, match="offers stillmotion/tiny"):
        load_remote(Settings(remote_url=f"{url}/v1", remote_key=SecretStr("key"), model="other"))
    with pytest.raises(httpx.HTTPStatusError):
        load_remote(Settings(remote_url=f"{url}/v1"))
    with pytest.raises(DeadlineExceededError):
        list(there.chat(SAID, [flat], options, soon(-1)))
