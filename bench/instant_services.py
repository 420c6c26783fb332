"""Both model services with nothing to compute: what a gateway takes for itself is seen against them.

    python -m bench.instant_services VL_PORT VIDEO_PORT
"""

import asyncio
import hashlib
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.describe import DescribeRequest, DescribeResponse, TaskResult
from contracts.models import Health
from contracts.videos import RenderResult, RenderStatus, VideoRequest
from tests.unit.gateway.model_services import VIDEO_MODEL, VL_MODEL
from web.parts import sent

_VIDEO = b"instant" * 1000
_SHA256 = hashlib.sha256(_VIDEO).hexdigest()
_JSON = "application/json"


async def _ready(_: Request) -> Response:
    return Response(Health(ready=True).model_dump_json(), media_type=_JSON)


async def _describe(request: Request) -> Response:
    asked = await sent(DescribeRequest)(request)
    results = [TaskResult(kind=task.kind, text=task.user_prompt or "a cat, slowly turning") for task in asked.tasks]
    answer = DescribeResponse(results=results, model="tiny-vl", revision="v1", engine="embedded-cpu", seconds=0.0)
    return Response(answer.model_dump_json(), media_type=_JSON)


def _video_app() -> Starlette:
    done: dict[str, str] = {}

    async def put(request: Request) -> Response:
        asked = await sent(VideoRequest)(request)
        render_id = request.path_params["render_id"]
        result = RenderResult(
            width=asked.width, height=asked.height, num_frames=asked.num_frames, fps=asked.fps, steps=asked.steps or 4,
            sampler=asked.sampler or "euler", guidance_scale=asked.guidance_scale or 1.0, seed=asked.seed,
            model="tiny-wan", revision="r1", engine="torch-cpu", dtype="float32", num_bytes=len(_VIDEO), sha256=_SHA256,
            timings={"total": 0.0},
        )
        status = RenderStatus(id=render_id, state="completed", step=4, num_steps=4, progress=1.0, result=result)
        done[render_id] = status.model_dump_json()
        return Response(done[render_id], 201, media_type=_JSON)

    async def events(request: Request) -> Response:
        body = f"data: {done[request.path_params['render_id']]}\n\n"
        return Response(body, media_type="text/event-stream")

    async def status(request: Request) -> Response:
        known = done.get(request.path_params["render_id"])
        return Response(known, media_type=_JSON) if known else Response(status_code=404)

    async def content(request: Request) -> Response:
        kind = "video/mp4" if request.query_params.get("variant", "video") == "video" else "image/jpeg"
        return Response(_VIDEO, media_type=kind)

    async def delete(request: Request) -> Response:
        return Response(status_code=204 if done.pop(request.path_params["render_id"], None) else 404)

    async def models(_: Request) -> Response:
        return JSONResponse({"data": [VIDEO_MODEL.model_dump(mode="json")]})

    one = "/v1/videos/{render_id}"
    return Starlette(routes=[
        Route("/readyz", _ready), Route("/v1/models", models), Route(one, put, methods=["PUT"]), Route(one, status),
        Route(one, delete, methods=["DELETE"]), Route(f"{one}/events", events), Route(f"{one}/content", content),
    ])


def _vl_app() -> Starlette:
    async def models(_: Request) -> Response:
        return JSONResponse({"data": [VL_MODEL.model_dump(mode="json")]})

    return Starlette(routes=[
        Route("/readyz", _ready), Route("/v1/models", models), Route("/v1/describe", _describe, methods=["POST"]),
    ])


async def _serve(vl_port: int, video_port: int) -> None:
    await asyncio.gather(*(
        uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False)).serve()
        for app, port in ((_vl_app(), vl_port), (_video_app(), video_port))
    ))


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
