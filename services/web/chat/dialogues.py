"""`POST /v1/describe` with `messages`: each task is one reply, told as it is written or whole."""

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from fastapi.sse import format_sse_event

from contracts.chat import ChatEnd, ChatOptions, ChatRequest, Turn
from contracts.openai.chat import DialogueRequest, DialogueResponse, DialogueResult
from web.chat.completions import Reply, explained, usage_of

Ask = Callable[[ChatRequest], Awaitable[Reply]]
"""Begins a reply."""
Told = AsyncGenerator[str | DialogueResult | DialogueResponse]
"""Pieces of text, a result after those of its task, and all together at the end."""


def requests_for(request: DialogueRequest, turns: Sequence[Turn]) -> list[ChatRequest]:
    """One for each task, about these turns. Raises pydantic's `ValidationError`."""
    return [
        ChatRequest(turns=tuple(turns), options=ChatOptions(
            kind=task.kind, language=request.language, profile=request.profile, seed=request.seed,
            max_new_tokens=request.max_new_tokens))
        for task in request.tasks
    ]


async def converse(requests: Sequence[ChatRequest], ask: Ask) -> Told:
    """Carry out the tasks in their order. Raises what `ask` and its replies raise."""
    started = time.monotonic()
    results: list[DialogueResult] = []
    ends: list[ChatEnd] = []
    for request in requests:
        async with aclosing(await ask(request)) as reply:
            async for piece in reply:
                if isinstance(piece, str):
                    yield piece
                    continue
                kind = request.options.kind
                assert kind != "chat"
                ends.append(piece)
                results.append(DialogueResult(kind=kind, text=piece.text, warnings=list(piece.warnings)))
                yield results[-1]
    last = ends[-1]
    yield DialogueResponse(
        results=results, model=last.model, revision=last.revision, engine=last.engine,
        seconds=time.monotonic() - started, usage=usage_of(*ends))


async def whole(told: Told) -> DialogueResponse:
    """All together, without the pieces."""
    async with aclosing(told):
        async for piece in told:
            if isinstance(piece, DialogueResponse):
                return piece
    raise EOFError("the dialogue has no end")


async def as_events(told: Told) -> AsyncGenerator[bytes]:
    """Server-sent events `text` (a JSON string), `result`, at the end `done` with everything, or `error`."""
    try:
        async with aclosing(told):
            async for piece in told:
                if isinstance(piece, str):
                    yield format_sse_event(data_str=json.dumps(piece, ensure_ascii=False), event="text")
                else:
                    event = "result" if isinstance(piece, DialogueResult) else "done"
                    yield format_sse_event(data_str=piece.model_dump_json(), event=event)
    except Exception as error:  # the status has been sent: this is the place to say it
        yield format_sse_event(data_str=explained(error).model_dump_json(exclude_none=True), event="error")
