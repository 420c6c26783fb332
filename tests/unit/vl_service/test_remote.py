"""Another server as the backend, held against a real one: our own chat completions in another process."""

import io
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr
from skimage.data import chelsea

from contracts.chat import ChatOptions, ImagePart, TextPart, Turn
from tests.unit.vl_service.http.test_process import running, wait_until
from tests.unit.vl_service.qwen.tiny_qwen import save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import CannotReplyError, CheckpointError, Deadline, DeadlineExceededError
from vl_service.images import DecodedImage
from vl_service.prompts.asking import messages
from vl_service.qwen.backend import load_qwen
from vl_service.remote import RemoteAwayError, RemoteBackend, RemoteFailedError, load_remote
from vl_service.settings import Settings

SAID = [Turn(role="user", content=(ImagePart(), TextPart(text="What?"))),
        Turn(role="assistant", content=(TextPart(text="A cat."),)),
        Turn(role="user", content=(TextPart(text="Sure?"),))]


def soon(seconds: float = 60) -> Deadline:
    return Deadline(at=time.monotonic() + seconds)


@pytest.mark.slow
def test_the_words_are_those_of_the_same_model_in_this_process(tmp_path: Path) -> None:
    folder = save_tiny_checkpoint("qwen2_5_vl", tmp_path / "tiny")
    here = load_qwen(Settings(model=str(folder), device="cpu", greedy=True, data_dir=tmp_path))
    buffer = io.BytesIO()
    Image.fromarray(chelsea()).resize((150, 100)).save(buffer, "JPEG", quality=95, subsampling=0)
    picture = DecodedImage.of(buffer.getvalue())
    with running({"VL_MODEL": str(folder), "VL_DEVICE": "cpu", "VL_GREEDY": "1", "STILLMOTION_INTERNAL_TOKEN": "key",
                  "STILLMOTION_DATA": str(tmp_path)}) as (_, url):
        wait_until(f"{url}/readyz", 200)
        there = load_remote(Settings(remote_url=f"{url}/v1", remote_key=SecretStr("key"), greedy=True))
        assert there.info.id == "tiny"
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
        with pytest.raises(CheckpointError, match="offers tiny"):
            load_remote(Settings(remote_url=f"{url}/v1", remote_key=SecretStr("key"), model="other"))
        with pytest.raises(httpx.HTTPStatusError):
            load_remote(Settings(remote_url=f"{url}/v1"))
        with pytest.raises(DeadlineExceededError):
            list(there.chat(SAID, [flat], options, soon(-1)))


class _Odd(BaseHTTPRequestHandler):
    """Answers as `answer` says, and notes what it was asked."""

    answer: ClassVar[tuple[int, str]] = (200, "")
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[RemoteBackend]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Odd)
    Thread(target=server.serve_forever, daemon=True).start()
    _Odd.asked.clear()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}/v1") as http:
        yield RemoteBackend(http, "m", greedy=False)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "body", "error"), [
    (503, "", RemoteAwayError), (429, '{"error": {"message": "slowly"}}', RemoteAwayError),
    (401, '{"error": {"message": "no key"}}', RemoteFailedError),
    (400, '{"error": {"message": "long"}}', CannotReplyError), (200, "data: {no json\n\n", RemoteFailedError),
    (200, 'data: {"error": {"message": "broke"}}\n\n', RemoteFailedError),
    (200, "data: []\n\n", RemoteFailedError),
])
def test_what_another_server_does_wrong_is_said_by_its_kind(
    odd: RemoteBackend, status: int, body: str, error: type[Exception]
) -> None:
    _Odd.answer = (status, body)
    with pytest.raises(error):
        list(odd.chat(SAID[2:], [], ChatOptions(), soon()))


def test_a_text_in_another_language_is_asked_for_once_more_and_options_travel(odd: RemoteBackend) -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": "一只猫"}, "finish_reason": "length"}]})
    _Odd.answer = (200, f": comment\n\ndata: {chunk}\n\ndata: [DONE]\n\n")
    task = prompt_task(kind="caption", seed=4)
    assert odd.describe(None, [task], soon()).answers[0].text == "一只猫"
    assert [asked["seed"] for asked in _Odd.asked] == [4, 5]
    assert _Odd.asked[0]["messages"] == messages(task, with_picture=False)
    schema = {"type": "object"}
    last = list(odd.chat(SAID[2:], [], ChatOptions(json_schema=schema, temperature=0.1, top_p=0.5), soon()))[-1]
    assert (last.finish, last.completion_tokens) == ("length", 1)
    assert _Odd.asked[-1]["response_format"]["json_schema"]["schema"] == schema
    assert (_Odd.asked[-1]["temperature"], _Odd.asked[-1]["top_p"]) == (0.1, 0.5)


def test_a_server_that_is_not_there_may_come_back() -> None:
    with httpx.Client(base_url="http://127.0.0.1:9/v1") as http:
        backend = RemoteBackend(http, "m", greedy=False)
        with pytest.raises(RemoteAwayError, match="cannot be reached"):
            list(backend.chat(SAID[2:], [], ChatOptions(), soon()))
