"""Dialogues through the gateway: OpenAI's own package, conversations that go on, and videos of their last prompts."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from contracts.errors import Problem
from gateway.auth.keys import KeyLimits, KeyStore
from gateway.database.database import Database
from gateway.submit.conversations import Conversation, ConversationStore
from tests.unit.gateway.conftest import (
    gateway_settings,
    left_behind,
    open_client,
    open_gateway,
    open_socket_client,
    until,
)
from tests.unit.gateway.model_services import Services

BUSY = Problem(status=503, code="unavailable", title="Gone", detail="The worker died.")


@pytest.fixture
def cat(picture: Callable[..., bytes]) -> str:
    return "data:image/png;base64," + base64.b64encode(picture()).decode()


@pytest.fixture
async def remote(tmp_path: Path, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with open_socket_client(gateway_settings(tmp_path, services)) as client:
        yield client


@pytest.fixture
async def client(tmp_path: Path, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(gateway_settings(tmp_path, services)) as opened:
        yield opened


def sdk(client: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=str(client.base_url.join("/v1")), api_key="none", max_retries=0)


def seen(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


async def say(client: httpx.AsyncClient, content: Any, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/describe", json={"messages": [{"role": "user", "content": content}], **more})
    assert response.status_code == 200, response.text
    return response.json()


async def test_openai_s_package_talks_about_a_picture(remote: httpx.AsyncClient, services: Services, cat: str) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."},
                     {"role": "user", "content": [{"type": "text", "text": "What?"}, seen(cat)]}]
    async with sdk(remote) as client:
        whole = await client.chat.completions.create(
            model="tiny-vl", messages=messages, max_tokens=7, seed=3, temperature=0, top_p=0.5, stop="x")
        stream = await client.chat.completions.create(
            model="tiny-vl", messages=messages, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content == "chat: The cat turns."
    assert whole.usage is not None
    assert whole.usage.total_tokens == 4
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "The cat turns."
    assert chunks[-1].usage is not None
    asked = services.script.chat_calls[0]
    options = asked.options
    assert (options.kind, options.max_new_tokens, options.seed, options.temperature, options.top_p, options.stop) == (
        "chat", 7, 3, 0, 0.5, ("x",))
    assert [turn.role for turn in asked.turns] == ["system", "user"]
    assert asked.pictures[0].startswith((b"\x89PNG", b"\xff\xd8"))


@pytest.mark.parametrize(("more", "kind", "code"), [
    ({"model": "tiny-wan"}, openai.NotFoundError, "model_not_found"),
    ({"tools": [{"type": "function"}]}, openai.BadRequestError, "invalid_request"),
    ({"messages": [{"role": "user", "content": [seen("https://a.example/cat.png")]}]},
     openai.BadRequestError, "image_url_not_allowed"),
    ({"messages": [{"role": "user", "content": [seen("data:image/png;base64,AAAA")]}]},
     openai.BadRequestError, "image_unreadable"),
])
async def test_refusals_are_openai_s_errors_and_cost_the_model_nothing(
    remote: httpx.AsyncClient, services: Services, more: dict[str, Any], kind: type[openai.APIStatusError], code: str
) -> None:
    body: Any = {"model": "tiny-vl", "messages": [{"role": "user", "content": "a"}], **more}
    async with sdk(remote) as client:
        with pytest.raises(kind) as refused:
            await client.chat.completions.create(**body)
    assert refused.value.code == code
    assert services.script.chat_calls == []


async def test_a_service_that_fails_says_so_before_and_in_the_middle_of_a_reply(
    remote: httpx.AsyncClient, services: Services
) -> None:
    body: Any = {"model": "tiny-vl", "messages": [{"role": "user", "content": "a"}]}
    services.script.chat_problem = BUSY
    async with sdk(remote) as client:
        with pytest.raises(openai.InternalServerError, match="The worker died"):
            await client.chat.completions.create(**body)
        with pytest.raises(openai.APIError, match="The worker died"):
            _ = [chunk async for chunk in await client.chat.completions.create(**body, stream=True)]
        services.script.describe_seats = 0
        with pytest.raises(openai.InternalServerError, match="one moment"):
            await client.chat.completions.create(**body, stream=True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/describe"])
@pytest.mark.parametrize("stream", [True, False])
async def test_when_the_client_leaves_so_does_the_gateway(
    remote: httpx.AsyncClient, services: Services, path: str, stream: bool
) -> None:
    services.script.chat_goes_on = True
    body = {"messages": [{"role": "user", "content": "a"}], "stream": stream}
    body |= {"model": "tiny-vl"} if path.endswith("completions") else {}
    async with httpx.AsyncClient(base_url=remote.base_url) as leaving:
        waiting = asyncio.create_task(leaving.post(path, json=body))
        async with asyncio.timeout(30):
            while not services.script.chat_calls:  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            waiting.cancel()
    async with asyncio.timeout(30):
        while not services.script.chats_left:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.01)


async def test_a_dialogue_is_streamed_and_ends_with_all_of_it(remote: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "a"}], "stream": True,
            "tasks": [{"kind": "reply"}, {"kind": "prompt"}]}
    response = await remote.post("/v1/describe", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.split(": ", 1) for line in response.text.splitlines() if line]
    events = list(zip((line[1] for line in lines[::2]), (json.loads(line[1]) for line in lines[1::2]), strict=True))
    assert [name for name, _ in events] == ["text", "text", "result"] * 2 + ["done"]
    assert events[0][1] == "The cat "
    done = events[-1][1]
    assert [result["kind"] for result in done["results"]] == ["reply", "prompt"]
    assert done["conversation"].startswith("conv_")


async def test_a_conversation_goes_on_with_its_pictures_and_makes_videos(
    tmp_path: Path, services: Services, cat: str
) -> None:
    """`make it slower, and dusk` works on the last video: its picture, size, seed, and a new prompt."""
    async with open_client(gateway_settings(tmp_path, services)) as client:
        first = await say(client, [seen(cat), {"type": "text", "text": "A cat turns."}], tasks=[{"kind": "prompt"}])
        made = (await client.post("/generate", json={
            "conversation": first["conversation"], "num_frames": 9, "seed": 5, "size": "192x192"})).json()
        done = await until(client, made["id"], lambda job: job["state"] == "completed")
        assert done["actual_prompt"] == "prompt: The cat turns."
        assert services.script.requests[made["id"]].image is not None

        services.script.chat_pieces = ["The cat turns slowly at dusk."]
        then = await say(
            client, "慢一点，黄昏。", conversation=first["conversation"], language="zh", tasks=[{"kind": "prompt"}])
        assert then["conversation"] == first["conversation"]
        asked = services.script.chat_calls[-1]
        assert [turn.role for turn in asked.turns] == ["user", "assistant", "user"]
        assert (asked.options.language, len(asked.pictures), asked.turns[1].text) == ("zh", 1, "prompt: The cat turns.")
        again = (await client.post("/generate", json={"conversation": first["conversation"]})).json()
        done = await until(client, again["id"], lambda job: job["state"] == "completed")
        assert done["actual_prompt"] == "prompt: The cat turns slowly at dusk."
        kept = ("num_frames", "seed", "width", "height", "steps")
        assert {name: done["parameters"][name] for name in kept} == {
            name: made["parameters"][name] for name in kept}
        assert services.script.requests[again["id"]].image == services.script.requests[made["id"]].image

        view = (await client.get(f"/v1/conversations/{first['conversation']}")).json()
        assert [(said["role"], said["pictures"]) for said in view["messages"]] == [
            ("user", 1), ("assistant", 0), ("user", 0), ("assistant", 0)]
        assert (view["prompt"], view["job_id"]) == ("prompt: The cat turns slowly at dusk.", again["id"])
        assert left_behind(tmp_path, first["conversation"])
        assert (await client.delete(f"/v1/conversations/{first['conversation']}")).json()["deleted"]
        assert not left_behind(tmp_path, first["conversation"])
        gone = await client.post("/generate", json={"conversation": first["conversation"]})
        assert (gone.status_code, gone.json()["code"]) == (404, "conversation_not_found")


async def test_what_is_wrong_with_a_message_is_said(client: httpx.AsyncClient) -> None:
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"conversation": "conv_no"}, 404, "conversation_not_found"),
        ({"tasks": [{"kind": "caption"}]}, 422, "invalid_request"),
        ({"messages": [{"role": "system", "content": "a"}]}, 422, "invalid_request"),
        ({"messages": []}, 422, "invalid_request"), ({"image": "AAAA"}, 422, "invalid_request"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 422, "invalid_request"),
    ]
    for body, status, code in wrong:
        response = await client.post("/v1/describe", json={"messages": [{"role": "user", "content": "a"}], **body})
        assert (response.status_code, response.json()["code"]) == (status, code), body


async def test_a_video_needs_a_prompt_of_the_conversation_and_no_other(client: httpx.AsyncClient) -> None:
    talk = (await say(client, "Hello"))["conversation"]
    for body, code in (({}, "conversation_without_prompt"), ({"prompt": "a kite"}, "prompt_given_twice")):
        refused = await client.post("/generate", json={"conversation": talk, **body})
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert "conversation" not in await say(client, "Hello", store=False)


async def test_conversations_are_their_key_s_alone(tmp_path: Path, services: Services) -> None:
    settings = gateway_settings(tmp_path, services, keys="required")
    async with open_client(settings) as client:
        store = KeyStore(Database(settings.jobs_database_url))
        mine, theirs = (
            {"Authorization": f"Bearer {store.create(name, KeyLimits())[1]}"} for name in ("mine", "theirs"))
        body = {"messages": [{"role": "user", "content": "a"}], "tasks": [{"kind": "prompt"}]}
        assert (await client.post("/v1/describe", json=body)).status_code == 401
        talk = (await client.post("/v1/describe", json=body, headers=mine)).json()["conversation"]
        for request in (
            client.get(f"/v1/conversations/{talk}", headers=theirs),
            client.delete(f"/v1/conversations/{talk}", headers=theirs),
            client.post("/v1/describe", json={**body, "conversation": talk}, headers=theirs),
            client.post("/generate", json={"conversation": talk}, headers=theirs),
        ):
            assert (await request).json()["code"] == "conversation_not_found"
        assert (await client.get(f"/v1/conversations/{talk}", headers=mine)).status_code == 200


async def test_the_oldest_conversations_make_room_with_their_pictures(
    tmp_path: Path, services: Services, cat: str
) -> None:
    async with open_client(gateway_settings(tmp_path, services, max_conversations=2)) as client:
        talks = [(await say(client, [seen(cat)]))["conversation"] for _ in range(3)]
        found = [(await client.get(f"/v1/conversations/{talk}")).status_code for talk in talks]
        assert found == [404, 200, 200]
        assert [bool(left_behind(tmp_path, talk)) for talk in talks] == [False, True, True]


async def test_an_unused_conversation_is_gone_after_its_time(tmp_path: Path, services: Services, cat: str) -> None:
    async with open_gateway(gateway_settings(tmp_path, services, keep_conversations_s=0.2)) as (client, gateway):
        talk = (await say(client, [seen(cat)]))["conversation"]
        await asyncio.sleep(0.3)
        assert (await client.get(f"/v1/conversations/{talk}")).status_code == 404
        await gateway.dialogues.remove_files(gateway.dialogues.store.expire())
        assert not left_behind(tmp_path, talk)
        assert gateway.dialogues.store.ids() == set()


async def test_two_messages_at_once_do_not_overwrite_each_other(client: httpx.AsyncClient) -> None:
    talk = (await say(client, "a"))["conversation"]
    body = {"messages": [{"role": "user", "content": "b"}], "conversation": talk}
    answers = await asyncio.gather(*(client.post("/v1/describe", json=body) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) in ([200, 200], [200, 409])
    told = (await client.get(f"/v1/conversations/{talk}")).json()["messages"]
    assert len(told) == 2 + 2 * sum(answer.status_code == 200 for answer in answers)


async def test_a_message_that_comes_too_late_leaves_the_pictures_of_the_one_that_was_kept(
    client: httpx.AsyncClient, services: Services, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = (await say(client, "Begin."))["conversation"]
    with monkeypatch.context() as both_read_it_now:
        real, read = ConversationStore.get, list[Conversation]()

        def get(store: ConversationStore, *which: str) -> Conversation:
            read.append(read[0] if read else real(store, *which))
            return read[0]

        both_read_it_now.setattr(ConversationStore, "get", get)
        for size, status in ((64, 200), (96, 409)):
            shown = "data:image/png;base64," + base64.b64encode(picture(size, size)).decode()
            answer = await client.post("/v1/describe", json={
                "conversation": conversation, "messages": [{"role": "user", "content": [seen(shown)]}]})
            assert answer.status_code == status, answer.text
    kept, late = (call.pictures for call in services.script.chat_calls[-2:])
    await say(client, "And now?", conversation=conversation)
    assert services.script.chat_calls[-1].pictures == kept != late
