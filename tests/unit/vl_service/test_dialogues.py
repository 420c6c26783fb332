"""Dialogues over HTTP: pieces as they are written, cuts, refusals, the client who leaves; OpenAI's own package."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from contracts.chat import ChatEnd, ChatEvent, ChatOptions, ChatRequest, TextPart, Turn
from contracts.openai_chat import Message, turns_of
from tests.unit.vl_service.test_app import Client, address, client, problem, scripted, until_calls  # noqa: F401
from vl_service.backend import Piece
from vl_service.dialogue.reply import until_stop

MODEL = "scripted"


def turn(text: str) -> Turn:
    return Turn(role="user", content=(TextPart(text=text),))


def events_of(body: str) -> list[ChatEvent]:
    return [ChatEvent.model_validate_json(line[6:]) for line in body.splitlines() if line.startswith("data: ")]


async def chatted(client: Client, request: ChatRequest) -> tuple[str, ChatEnd | None, str | None]:
    """The text, the end, and the code of what went wrong."""
    response = await client.post("/v1/chat", content=request.words_json())
    assert response.status_code == 200, response.text
    events = events_of(response.text)
    error = events[-1].error
    return "".join(event.text for event in events), events[-1].end, error.code if error else None


def completion(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


async def test_a_reply_comes_in_pieces_and_ends_with_its_counts(tmp_path: Path) -> None:
    async with scripted(tmp_path) as client:
        text, end, _ = await chatted(client, ChatRequest(turns=(turn("one two three"),)))
    assert text == "0 one two three "
    assert end is not None
    assert (end.text, end.finish, end.prompt_tokens, end.completion_tokens) == (text, "stop", 1, 4)


@pytest.mark.parametrize(("stops", "said", "finish"), [
    (("c de",), "ab ", "stop"), (("x",), "ab c def", "length"), (("def", "b c"), "a", "stop"), (("zz", "f"), "ab c de", "stop"),
    (("defg",), "ab c def", "length"), ((), "ab c def", "length"),
])
def test_a_reply_ends_before_the_first_stop_however_it_is_cut_in_pieces(
    stops: tuple[str, ...], said: str, finish: str
) -> None:
    for cuts in (["ab c def"], ["a", "b", " ", "c", " ", "d", "e", "f"], ["ab c", " def"], ["ab ", "c d", "ef"]):
        pieces = [Piece(text=cut, prompt_tokens=1, completion_tokens=1) for cut in cuts]
        told = list(until_stop(iter([*pieces, Piece(prompt_tokens=1, completion_tokens=1, finish="length")]), stops))
        assert "".join(piece.text for piece in told) == said
        assert told[-1].finish == finish


async def test_the_worker_stops_when_the_client_leaves(tmp_path: Path) -> None:
    """Between two pieces, and for the next one at once; whichever call it was."""
    ways = [("/v1/chat", ChatRequest(turns=(turn("hold"),)).words_json()),
            ("/v1/chat/completions", json.dumps(completion("hold", stream=True)).encode())]
    from tests.unit.vl_service.test_process import running, wait_until  # noqa: PLC0415
    assert running
    assert wait_until
    async with scripted(tmp_path) as client:
        app: Any = client._transport.app  # type: ignore[attr-defined]
        for count, (path, body) in enumerate(ways, 1):
            async with _socket_client(app) as remote, remote.stream("POST", path, content=body, headers={
                    "Content-Type": "application/json"}) as response:
                async for line in response.aiter_lines():
                    if "on " in line:
                        break
            await until_calls(tmp_path, "+-" * count)
        text, _, _ = await chatted(client, ChatRequest(turns=(turn("next"),)))
        assert text == "0 next "
