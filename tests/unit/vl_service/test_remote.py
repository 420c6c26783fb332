"""Another server as the backend, and what it does wrong. test_process.py has one that does as it should."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import httpx
import pytest

from contracts.chat import ChatOptions, TextPart, Turn
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import CannotReplyError, Deadline
from vl_service.prompts.asking import messages
from vl_service.remote import RemoteAwayError, RemoteBackend, RemoteFailedError

SAID = [Turn(role="user", content=(TextPart(text="Sure?"),))]


def soon(seconds: float = 60) -> Deadline:
    return Deadline(at=time.monotonic() + seconds)


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
        list(odd.chat(SAID, [], ChatOptions(), soon()))


def test_a_text_in_another_language_is_asked_for_once_more_and_options_travel(odd: RemoteBackend) -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": "一只猫"}, "finish_reason": "length"}]})
    _Odd.answer = (200, f": comment\n\ndata: {chunk}\n\ndata: [DONE]\n\n")
    task = prompt_task(kind="caption", seed=4)
    assert odd.describe(None, [task], soon()).answers[0].text == "一只猫"
    assert [asked["seed"] for asked in _Odd.asked] == [4, 5]
    assert _Odd.asked[0]["messages"] == messages(task, with_picture=False)
    schema = {"type": "object"}
    last = list(odd.chat(SAID, [], ChatOptions(json_schema=schema, temperature=0.1, top_p=0.5), soon()))[-1]
    assert (last.finish, last.completion_tokens) == ("length", 1)
    assert _Odd.asked[-1]["response_format"]["json_schema"]["schema"] == schema
    assert (_Odd.asked[-1]["temperature"], _Odd.asked[-1]["top_p"]) == (0.1, 0.5)


def test_a_server_that_is_not_there_may_come_back() -> None:
    with httpx.Client(base_url="http://127.0.0.1:9/v1") as http:
        backend = RemoteBackend(http, "m", greedy=False)
        with pytest.raises(RemoteAwayError, match="cannot be reached"):
            list(backend.chat(SAID, [], ChatOptions(), soon()))
