"""The vision-language service, played."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from contracts.chat import ChatEnd, ChatEvent, ChatRequest
from contracts.describe import DescribeRequest, DescribeResponse, TaskResult
from contracts.errors import Problem
from contracts.models import (
    Health,
    VLModelList,
)
from tests.unit.gateway.model_services.script import VL_MODEL, Script, ScriptedToken
from web.parts import sent
from web.problems import problem_response


def vl_app(script: Script) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ScriptedToken, script=script)

    @app.get("/readyz")
    def readyz() -> Response:
        health = Health(ready=script.vl_ready, reasons=[] if script.vl_ready else ["the weights are loading"])
        return JSONResponse(health.model_dump(), 200 if script.vl_ready else 503)

    @app.get("/v1/models")
    def models() -> VLModelList:
        return VLModelList(data=[VL_MODEL.model_copy(update={"at_once": script.vl_at_once})])

    @app.post("/v1/describe")
    async def describe(asked: Annotated[DescribeRequest, Depends(sent(DescribeRequest))], request: Request) -> Response:
        script.describe_calls.append(asked)
        script.headers.append(dict(request.headers))
        if script.describing >= script.describe_seats:
            return problem_response(Problem(status=429, code="queue_full", title="Full", detail="one moment"))
        script.describing += 1
        script.most_describing = max(script.most_describing, script.describing)
        try:
            await asyncio.sleep(script.describe_delay_s)
            while not script.may_go_on.is_set():  # noqa: ASYNC110 - it is set from other threads
                await asyncio.sleep(0.01)
        finally:
            script.describing -= 1
        if script.describe_status != 200:
            return problem_response(Problem(
                status=script.describe_status, code="told_so", title="No", detail="the script says no",
            ))
        texts = {"caption": "a grey cat on a sill", "question": "yes", "edit_suggestion": "crop it",
                 "verdict": "A knife is shown."}
        results = [
            TaskResult(kind=task.kind, text=texts.get(task.kind) or f"{task.user_prompt or 'the cat'}, slowly turning",
                       warnings=script.describe_warnings, verdict=script.verdict if task.kind == "verdict" else None)
            for task in asked.tasks
        ]
        answer = DescribeResponse(results=results, model="tiny-vl", revision="v1", engine="embedded-cpu", seconds=0.01)
        return JSONResponse(answer.model_dump(mode="json"))

    @app.post("/v1/chat")
    async def chat(asked: Annotated[ChatRequest, Depends(sent(ChatRequest))]) -> Response:
        script.chat_calls.append(asked)
        if script.describing >= script.describe_seats:
            return problem_response(Problem(status=429, code="queue_full", title="Full", detail="one moment"))
        return StreamingResponse(_reply(asked, script), media_type="text/event-stream")

    return app


async def _reply(asked: ChatRequest, script: Script) -> AsyncIterator[str]:
    def event(told: ChatEvent) -> str:
        return f"data: {told.model_dump_json(exclude_defaults=True)}\n\n"

    try:
        for piece in script.chat_pieces:
            yield event(ChatEvent(text=piece))
            if script.chat_problem is not None:
                yield event(ChatEvent(error=script.chat_problem))
                return
        while script.chat_goes_on:
            await asyncio.sleep(0.02)
            yield event(ChatEvent(text="and "))
    except asyncio.CancelledError:
        script.chats_left += 1
        raise
    yield event(ChatEvent(end=ChatEnd(
        text=f"{asked.options.kind}: {''.join(script.chat_pieces)}", finish="stop", prompt_tokens=len(asked.turns),
        completion_tokens=len(script.chat_pieces), model="tiny-vl", revision="v1", engine="embedded-cpu")))
