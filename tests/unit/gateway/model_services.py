"""The two model services as small real HTTP servers that follow the contracts and do as they are told."""

import asyncio
import hashlib
import io
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.chat import ChatEnd, ChatEvent, ChatRequest
from contracts.describe import DescribeRequest, DescribeResponse, TaskResult, Verdict
from contracts.errors import Problem
from contracts.models import (
    AbsentModel,
    FloatRange,
    FrameRange,
    Health,
    IntRange,
    VideoModelInfo,
    VideoModelList,
    VLModelInfo,
    VLModelList,
)
from contracts.videos import TERMINAL_RENDER_STATES, RenderFile, RenderResult, RenderStatus, VideoRequest
from web.edge import InternalTokenMiddleware
from web.parts import sent
from web.problems import problem_response

VIDEO_MODEL = VideoModelInfo(
    id="tiny-wan", revision="r1", engine="torch-cpu", dtype="float32", profile="plain", tasks=["t2v", "i2v"],
    sizes=["256x192", "192x256", "192x192"], size_multiple=16, min_side=64, max_pixels=256 * 256,
    num_frames=FrameRange(minimum=5, maximum=81, default=25, step=4), fps=IntRange(minimum=8, maximum=30, default=16),
    steps=IntRange(minimum=1, maximum=50, default=4), guidance_scale=FloatRange(minimum=1.0, maximum=10.0, default=1.0),
    samplers=["euler", "unipc", "ode", "sde"], unguided_samplers=["ode", "sde"],
    sampler_steps={name: IntRange(minimum=1, maximum=4, default=4) for name in ("ode", "sde")},
)
VL_MODEL = VLModelInfo(
    id="tiny-vl", revision="v1", engine="embedded-cpu", dtype="float32",
    tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"], profiles=["plain", "wan"],
)


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Script:
    """What the services do, and what they were asked. Read and written from the test's thread as well."""

    describe_delay_s: float = 0.0
    describe_status: int = 200
    verdict: Verdict = "ok"
    describe_warnings: list[str] = field(default_factory=list)
    render_warnings: list[str] = field(default_factory=list)
    describe_seats: int = 1000  # more calls at once are refused as too many
    describing: int = 0
    most_describing: int = 0
    vl_at_once: int | None = None  # what the service says that it answers at one time
    describe_calls: list[DescribeRequest] = field(default_factory=list)
    chat_calls: list[ChatRequest] = field(default_factory=list)
    chat_pieces: list[str] = field(default_factory=lambda: ["The cat ", "turns."])
    chat_problem: Problem | None = None  # after the first piece
    chat_goes_on: bool = False  # until the gateway leaves
    chats_left: int = 0
    vl_ready: bool = True
    video_ready: bool = True
    video_stuck: bool = False
    models: list[VideoModelInfo] = field(default_factory=lambda: [VIDEO_MODEL])
    absent: list[AbsentModel] = field(default_factory=list)
    step_s: float = 0.01
    may_go_on: threading.Event = field(default_factory=_set_event)  # cleared: renders stay in step 2, descriptions too
    step_seen: threading.Semaphore | None = None  # given: a render waits for one at every step
    failures: list[Problem] = field(default_factory=list)  # one is used up by each render that begins
    puts: list[str] = field(default_factory=list)
    requests: dict[str, VideoRequest] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: dict[str, RenderStatus] = field(default_factory=dict)
    busy_answers: int = 0
    put_status: int = 200
    token: str | None = None  # asked for by every call but `/readyz`
    damaged_downloads: int = 0
    forget_on_put: bool = False


def video_bytes(render_id: str) -> bytes:
    """The "MP4" of a render: different for each id."""
    return hashlib.sha256(render_id.encode()).digest() * 4096


def preview_bytes(asked: VideoRequest) -> bytes:
    """The thumbnail, and the sprite sheet, of a render: grey, of its size."""
    out = io.BytesIO()
    Image.new("RGB", (asked.width, asked.height), "grey").save(out, "JPEG")
    return out.getvalue()


def last_frame_bytes(render_id: str, asked: VideoRequest) -> bytes:
    """The last frame of a render: of its size, a grey of its own."""
    out = io.BytesIO()
    grey = hashlib.sha256(render_id.encode()).digest()[0]
    Image.new("RGB", (asked.width, asked.height), (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


class ScriptedToken:
    """The services' own check, of the token that the script names at that moment."""

    def __init__(self, app: ASGIApp, script: Script) -> None:
        self.app = app
        self.script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await InternalTokenMiddleware(self.app, self.script.token)(scope, receive, send)


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


def video_app(script: Script) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ScriptedToken, script=script)
    app.add_api_route("/readyz", lambda: _video_ready(script))
    app.add_api_route("/v1/models", lambda: VideoModelList(data=script.models, absent=script.absent))
    tasks: dict[str, asyncio.Task[None]] = {}

    @app.put("/v1/videos/{render_id}")
    async def put(
        render_id: str, asked: Annotated[VideoRequest, Depends(sent(VideoRequest))], request: Request
    ) -> Response:
        script.headers.append(dict(request.headers))
        script.puts.append(render_id)
        if script.put_status != 200:
            return problem_response(Problem(
                status=script.put_status, code="told_so", title="No", detail="the script says no",
            ))
        if script.busy_answers > 0:
            script.busy_answers -= 1
            return problem_response(Problem(
                status=429, code="queue_full", title="Full", detail="one moment", retry_after_s=0,
            ))
        if script.requests.setdefault(render_id, asked) != asked:
            return problem_response(Problem(status=409, code="conflict", title="Conflict", detail="other body"))
        status = script.statuses.get(render_id)
        if status is None or status.state in ("failed", "canceled"):
            status = script.statuses[render_id] = RenderStatus(id=render_id, state="queued", queue_position=0)
            tasks[render_id] = asyncio.create_task(_render(render_id, script))
            if script.forget_on_put:
                script.forget_on_put = False
                tasks.pop(render_id).cancel()
                del script.statuses[render_id]
        return JSONResponse(status.model_dump(mode="json"), 201)

    @app.get("/v1/videos/{render_id}")
    def status(render_id: str) -> Response:
        return _status_answer(script, render_id)

    @app.get("/v1/videos/{render_id}/events")
    async def events(render_id: str) -> Response:
        if render_id not in script.statuses:
            return _unknown(render_id)
        return StreamingResponse(_events(script, render_id), media_type="text/event-stream")

    @app.get("/v1/videos/{render_id}/content")
    def content(render_id: str, variant: RenderFile = "video") -> Response:
        if variant == "last_frame":
            return Response(last_frame_bytes(render_id, script.requests[render_id]), media_type="image/png")
        if variant != "video":
            return Response(preview_bytes(script.requests[render_id]), media_type="image/jpeg")
        if script.damaged_downloads > 0:
            script.damaged_downloads -= 1
            return Response(b"half", media_type="video/mp4")
        return Response(video_bytes(render_id), media_type="video/mp4")

    @app.delete("/v1/videos/{render_id}")
    async def delete(render_id: str) -> Response:
        script.deleted.append(render_id)
        current = script.statuses.get(render_id)
        if current is None:
            return _unknown(render_id)
        if current.state in TERMINAL_RENDER_STATES:
            del script.statuses[render_id]
            return Response(status_code=204)
        tasks.pop(render_id).cancel()
        script.statuses[render_id] = RenderStatus(id=render_id, state="canceled")
        return _status_answer(script, render_id)

    return app


def _video_ready(script: Script) -> Response:
    reasons = ["the transformer is missing"] if script.video_stuck else ["the model is loading"]
    health = Health(
        ready=script.video_ready, stuck=script.video_stuck, reasons=[] if script.video_ready else reasons
    )
    return JSONResponse(health.model_dump(), 200 if script.video_ready else 503)


async def _render(render_id: str, script: Script) -> None:
    script.begun.append(render_id)
    asked = script.requests[render_id]
    num_steps = asked.steps or 4
    for step in range(num_steps):
        script.statuses[render_id] = RenderStatus(
            id=render_id, state="running", stage="denoise", step=step, num_steps=num_steps, progress=step / num_steps,
            eta_s=(num_steps - step) * script.step_s,
        )
        await asyncio.sleep(script.step_s)
        if step == 2:
            await asyncio.to_thread(script.may_go_on.wait)
        if script.step_seen is not None:
            await asyncio.to_thread(script.step_seen.acquire, timeout=30)
    if script.failures:
        script.statuses[render_id] = RenderStatus(id=render_id, state="failed", error=script.failures.pop(0))
        return
    data = video_bytes(render_id)
    result = RenderResult(
        width=asked.width, height=asked.height,
        num_frames=asked.num_frames * (2 if asked.extends else 1) - bool(asked.extends),
        fps=asked.fps, steps=num_steps,
        sampler=asked.sampler or "euler", guidance_scale=asked.guidance_scale or 1.0, seed=asked.seed, model="tiny-wan",
        revision="r1", engine="torch-cpu", dtype="float32", num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        timings={"text": 0.1, "condition": 0.2, "denoise": 0.3, "decode": 0.4, "write": 0.5, "total": 1.5},
        warnings=script.render_warnings,
    )
    script.completed.append(render_id)
    script.statuses[render_id] = RenderStatus(
        id=render_id, state="completed", step=num_steps, num_steps=num_steps, progress=1.0, result=result
    )


async def _events(script: Script, render_id: str) -> AsyncIterator[str]:
    last = None
    while (now := script.statuses.get(render_id)) is not None:
        if now != last:
            last = now
            yield f"data: {now.model_dump_json()}\n\n"
        if now.state in TERMINAL_RENDER_STATES:
            return
        await asyncio.sleep(0.005)


def _status_answer(script: Script, render_id: str) -> Response:
    status = script.statuses.get(render_id)
    return _unknown(render_id) if status is None else JSONResponse(status.model_dump(mode="json"))


def _unknown(render_id: str) -> Response:
    return problem_response(Problem(status=404, code="not_found", title="None", detail=f"no render {render_id}"))


@dataclass(frozen=True)
class Services:
    """Where both run, and their script."""

    vl_url: str
    video_url: str
    script: Script


@contextmanager
def running_services() -> Iterator[Services]:
    """Both services on free loopback ports, in a thread of their own."""
    script = Script()
    servers, sockets = [], []
    for app in (vl_app(script), video_app(script)):
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        sockets.append(bound)
        servers.append(uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off")))

    async def serve() -> None:
        await asyncio.gather(*(
            server.serve(sockets=[bound]) for server, bound in zip(servers, sockets, strict=True)
        ))

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        urls = [f"http://127.0.0.1:{bound.getsockname()[1]}" for bound in sockets]
        yield Services(vl_url=urls[0], video_url=urls[1], script=script)
    finally:
        for server in servers:
            server.should_exit = server.force_exit = True
        thread.join(timeout=60)

