"""The HTTP calls, each a few lines over `VideoService`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from contracts.models import Health, VideoModelList
from contracts.videos import RENDER_ID_PATTERN, RenderFile, RenderStatus, VideoRequest
from video_service.http.service import VideoService
from video_service.queue.files import output_path
from video_service.queue.render import Render, RenderNotFinished
from web.parts import sent

router = APIRouter()


def get_service(request: Request) -> VideoService:
    """The service that the lifespan made."""
    return cast(VideoService, request.app.state.service)


Service = Annotated[VideoService, Depends(get_service)]
RenderId = Annotated[str, Path(pattern=RENDER_ID_PATTERN)]
SentRequest = Annotated[VideoRequest, Depends(sent(VideoRequest))]


def find_render(render_id: RenderId, service: Service) -> Render:
    """The render of the path; a 404 where there is none, before any streaming begins."""
    return service.renders.find(render_id)


FoundRender = Annotated[Render, Depends(find_render)]


@router.get("/livez")
async def livez() -> Health:
    """The process answers."""
    return Health(ready=True)


@router.get("/readyz", responses={503: {"model": Health}})
async def readyz(service: Service, response: Response) -> Health:
    """A render that comes now would be rendered; else 503 with the reasons."""
    health = service.health()
    response.status_code = 200 if health.ready else 503
    return health


@router.get("/v1/models")
async def models(service: Service) -> VideoModelList:
    """The models of this deployment, the default first, each with every bound that requests must respect and whether
    it is in memory; and those that are absent, and why. 503 before one was ever loaded."""
    return service.models()


@router.put("/v1/videos/{render_id}", responses={202: {"model": RenderStatus}})
async def put_video(render_id: RenderId, body: SentRequest, service: Service, response: Response) -> RenderStatus:
    """Render once, however often it is asked for.

    202: queued now (also a failed or canceled render, which is rendered again). 200: the same id and request were
    there; the answer is where that render stands. 409: the id belongs to another request. 429: no place is free.
    503: there is no model now.
    """
    render, created = await service.put(render_id, body)
    if created:
        response.status_code = 202
        response.headers["Location"] = f"/v1/videos/{render_id}"
    return service.renders.status(render)


@router.get("/v1/videos/{render_id}")
async def get_video(render: FoundRender, service: Service) -> RenderStatus:
    """Where the render stands."""
    return service.renders.status(render)


@router.get("/v1/videos/{render_id}/events", response_class=EventSourceResponse)
async def follow_video(
    render: FoundRender, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterator[ServerSentEvent]:
    """The status now and at every change, until the render has ended; a comment every 15 s keeps the line open.

    `Last-Event-ID` asks for what was missed since that event.
    """
    after = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else None
    async for event_id, status in render.history.follow(after):
        yield ServerSentEvent(data=status, id=str(event_id))


@router.api_route("/v1/videos/{render_id}/content", methods=["GET", "HEAD"], response_class=FileResponse)
async def video_content(
    render: FoundRender, variant: RenderFile = "video",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The MP4, whole or by Range, or one of the pictures that go with it. 409 while there is none."""
    status = render.status
    if status.state != "completed" or status.result is None:
        raise RenderNotFinished(status)
    path = output_path(render.folder, variant)
    if variant != "video":
        if not await asyncio.to_thread(path.is_file):
            raise HTTPException(404, f"There is no {variant} of this render.")
        return FileResponse(path, media_type="image/png" if path.suffix == ".png" else "image/jpeg")
    etag = f'"{status.result.sha256}"'
    if if_none_match is not None and etag in if_none_match:
        return Response(status_code=304, headers={"ETag": etag})
    return FileResponse(path, media_type="video/mp4", headers={"ETag": etag})


@router.delete("/v1/videos/{render_id}", responses={202: {"model": RenderStatus}, 204: {"description": "Removed."}})
async def delete_video(render_id: RenderId, service: Service) -> Response:
    """Cancel a render that has not ended; remove one that has.

    200: it was queued and is canceled. 202: it is running and stops within one denoising step. 204: it had ended;
    it and its file are gone.
    """
    render = service.renders.stop(render_id)
    if render is None:
        return Response(status_code=204)
    status = service.renders.status(render)
    return JSONResponse(status.model_dump(mode="json"), 202 if status.state == "running" else 200)
