"""Dialogues over a socket: pieces as they are written, cuts, refusals, the client who leaves; OpenAI's own package."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from contracts.chat import ChatEnd, ChatEvent, ChatOptions, ChatRequest, TextPart, Turn
from tests.unit.vl_service.test_app import RED, SCRIPTED, problem, until_calls, until_ready
from tests.unit.vl_service.test_process import running, wait_until
from vl_service.backend import Piece
from vl_service.http.app import create_app
from vl_service.settings import Settings
from vl_service.worker.dialogue import until_stop

PICTURE = f"data:image/png;base64,{RED}"
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The app with the scripted worker behind a real socket: clients may leave."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    app = create_app(Settings(model=str(folder), **settings), worker_command=SCRIPTED)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=60) as client:
            await until_ready(client)
            yield client
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with served(tmp_path) as opened:
        yield opened


def sdk(client: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=str(client.base_url.join("/v1")), api_key="none", max_retries=0)


def asked(text: str, **options: Any) -> bytes:
    turn = Turn(role="user", content=(TextPart(text=text),))
    return ChatRequest(turns=(turn,), options=ChatOptions(**options)).words_json()


async def chatted(client: httpx.AsyncClient, body: bytes) -> tuple[str, ChatEnd | None, str | None]:
    """The text, the end, and the code of what went wrong."""
    response = await client.post("/v1/chat", content=body, headers=JSON)
    assert response.status_code == 200, response.text
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    events = [ChatEvent.model_validate_json(line) for line in lines]
    error = events[-1].error
    return "".join(event.text for event in events), events[-1].end, error.code if error else None


@pytest.mark.parametrize(("stops", "said", "finish"), [
    (("c de",), "ab ", "stop"), (("x",), "ab c def", "length"), (("def", "b c"), "a", "stop"),
    (("zz", "f"), "ab c de", "stop"), (("defg",), "ab c def", "length"), ((), "ab c def", "length"),
])
def test_a_reply_ends_before_the_first_stop_however_it_is_cut_in_pieces(
    stops: tuple[str, ...], said: str, finish: str
) -> None:
    for cuts in (["ab c def"], list("ab c def"), ["ab c", " def"], ["ab ", "c d", "ef"]):
        pieces = [Piece(text=cut, prompt_tokens=1, completion_tokens=1) for cut in cuts]
        told = list(until_stop(iter([*pieces, Piece(prompt_tokens=1, completion_tokens=1, finish="length")]), stops))
        assert "".join(piece.text for piece in told) == said
        assert told[-1].finish == finish


async def test_a_reply_comes_in_pieces_and_ends_with_its_counts(client: httpx.AsyncClient) -> None:
    text, end, _ = await chatted(client, asked("one two three"))
    assert text == "0 one two three "
    assert end is not None
    assert (end.text, end.finish, end.prompt_tokens, end.completion_tokens) == (text, "stop", 1, 4)


async def test_describe_takes_messages_whole_and_streamed(client: httpx.AsyncClient) -> None:
    said = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}},
                                         {"type": "text", "text": 'say "messages" twice'}]}]
    body = {"messages": said, "tasks": [{"kind": "reply"}, {"kind": "prompt"}]}
    answer = await client.post("/v1/describe", json=body)
    assert answer.status_code == 200, answer.text
    assert [result["kind"] for result in answer.json()["results"]] == ["reply", "prompt"]
    assert answer.json()["results"][0]["text"].startswith('1 say "messages" twice')
    events = (await client.post("/v1/describe", json={**body, "stream": True})).text
    assert events.index("event: text") < events.index("event: result") < events.index("event: done")
    one = {"tasks": [{"kind": "prompt", "user_prompt": 'the sign says "messages"'}]}
    assert (await client.post("/v1/describe", json=one)).json()["results"][0]["kind"] == "prompt"
    for wrong in ({"messages": []}, {"messages": [{"role": "assistant", "content": "a"}]},
                  {**body, "image": "AA"}):
        refused = await client.post("/v1/describe", json=wrong)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_openai_s_package_gets_the_reply_whole_and_streamed(client: httpx.AsyncClient) -> None:
    picture: Any = {"type": "image_url", "image_url": {"url": PICTURE}}
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, picture]},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": [picture, {"type": "text", "text": "c d"}]}]
    async with sdk(client) as remote:
        whole = await remote.chat.completions.create(model="scripted", messages=messages, seed=1, temperature=0.5)
        assert whole.choices[0].message.content == "2 c d "
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (4, 3, 7)
        stream = await remote.chat.completions.create(
            model="scripted", messages=messages, stream=True, stop=["d"], stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len([piece for piece in said if piece]) == 2
    assert "".join(said) == "2 c "
    assert chunks[-1].usage is not None
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(("more", "kind", "code"), [
    ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
    ({"n": 2}, openai.BadRequestError, "invalid_request"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, openai.BadRequestError, "invalid_request"),
    ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "cannot_reply"),
    ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://a.example/cat.png"}}]}]},
     openai.BadRequestError, "image_url_not_allowed"),
    ({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
     openai.BadRequestError, "unreadable_image"),
])
async def test_refusals_are_openai_s_errors(
    client: httpx.AsyncClient, more: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    body: Any = {"model": "scripted", "messages": [{"role": "user", "content": "a"}], **more}
    async with sdk(client) as remote:
        for stream in (False, True):
            with pytest.raises(kind) as refused:
                await remote.chat.completions.create(**body, stream=stream)
            assert refused.value.code == code


async def test_what_breaks_a_stream_in_its_middle_is_raised_by_openai_s_package(client: httpx.AsyncClient) -> None:
    async with sdk(client) as remote:
        stream = await remote.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "one break"}], stream=True)
        with pytest.raises(openai.APIError, match="the service's log has the cause"):
            _ = [chunk async for chunk in stream]
    assert await chatted(client, asked("one break")) == ("0 one ", None, "internal_error")
    assert await chatted(client, asked("one die")) == ("0 one ", None, "unavailable")


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/chat", asked("hold")),
    *(("/v1/chat/completions", json.dumps({
        "model": "scripted", "stream": stream, "messages": [{"role": "user", "content": "hold"}]}).encode())
      for stream in (True, False)),
])
async def test_the_worker_stops_when_the_client_leaves(
    client: httpx.AsyncClient, tmp_path: Path, path: str, body: bytes
) -> None:
    async with httpx.AsyncClient(base_url=client.base_url) as leaving:
        waiting = asyncio.create_task(leaving.post(path, content=body, headers=JSON))
        await until_calls(tmp_path, "+")
        waiting.cancel()
    await until_calls(tmp_path, "+-")
    assert (await chatted(client, asked("next")))[0] == "0 next "


async def test_one_who_leaves_while_he_waits_is_not_answered(client: httpx.AsyncClient, tmp_path: Path) -> None:
    first = asyncio.create_task(chatted(client, asked("hold")))
    await until_calls(tmp_path, "+")
    async with httpx.AsyncClient(base_url=client.base_url) as leaving:
        waiting = asyncio.create_task(leaving.post("/v1/chat", content=asked("second"), headers=JSON))
        await asyncio.sleep(0.2)
        waiting.cancel()
    await asyncio.sleep(0.1)
    (tmp_path / "let_go").touch()
    assert (await first)[0].endswith("hold ")
    assert (tmp_path / "calls").read_text() == "+-"


async def test_bounds_hold_for_dialogues_too(tmp_path: Path) -> None:
    async with served(tmp_path, queue_limit=1, deadline_s=1.0) as client:
        first = asyncio.create_task(chatted(client, asked("hold")))
        await until_calls(tmp_path, "+")
        problem(await client.post("/v1/chat", content=asked("a"), headers=JSON), 429, "queue_full")
        assert (await first)[1:] == (None, "deadline_exceeded")
        await until_calls(tmp_path, "+-")
        await asyncio.sleep(0.1)
        assert (await chatted(client, asked("a")))[0] == "0 a "


async def test_pictures_and_their_places_must_agree(client: httpx.AsyncClient) -> None:
    sent = {"image_0": ("image_0", base64.b64decode(RED), "image/png")}
    for part, images in (({"type": "image"}, {}), ({"type": "text", "text": "a"}, sent)):
        words = json.dumps({"turns": [{"role": "user", "content": [part]}]})
        response = await client.post("/v1/chat", files={"request": (None, words), **images})
        problem(response, 422, "invalid_request")


@pytest.mark.slow
def test_the_demo_model_answers_a_question_and_joins_wishes(photograph_base64: Callable[[str], str]) -> None:
    """And says that it follows no dialogue, and what it cannot do."""
    with running({}) as (_, url):
        wait_until(f"{url}/readyz", 200)
        remote = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        picture: Any = {
            "type": "image_url", "image_url": {"url": f"data:image/png;base64,{photograph_base64('chelsea')}"}}
        question: Any = {"role": "user", "content": [picture, {"type": "text", "text": "What is this?"}]}
        answer = remote.chat.completions.create(model="embedded", messages=[question])
        assert "tabby cat" in (answer.choices[0].message.content or "")
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 3
        with pytest.raises(openai.BadRequestError, match="Qwen-VL"):
            remote.chat.completions.create(model="embedded", messages=[{"role": "user", "content": "Hello"}])
        turns = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in ("The cat yawns", "slower")]
        wishes = httpx.post(f"{url}/v1/chat", json={"turns": turns, "options": {"kind": "prompt"}}, timeout=60)
        assert "The cat yawns" in wishes.text
        assert "slower" in wishes.text
