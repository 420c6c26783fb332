"""The video service, played."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from contracts.errors import Problem
from contracts.models import (
    Health,
    VideoModelList,
)
from contracts.videos import TERMINAL_RENDER_STATES, RenderFile, RenderResult, RenderStatus, VideoRequest
from tests.unit.gateway.model_services.script import (
    Script,
    ScriptedToken,
    last_frame_bytes,
    preview_bytes,
    video_bytes,
)
from web.parts import sent
from web.problems import problem_response


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
            eta_s=(num_steps - step) * script.step_s, preview=f"step{step}" if asked.preview and step else None,
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
