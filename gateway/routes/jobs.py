"""The jobs: look, wait, follow, fetch, cancel, remove."""

import re
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from contracts.errors import Problem
from contracts.jobs import Job, JobPage
from gateway.endings import cancel, remove
from gateway.files import VIDEO_FILE
from gateway.follow import encode, event_stream, wait_until_ended
from gateway.jobs import JobRecord
from gateway.ledger import off_loop
from gateway.routes.access import OpenGateway, OwnJob, TheCaller
from gateway.routes.openapi import problems
from gateway.runtime import Gateway
from gateway.views import view, view_page
from wire.problems import ProblemError, problem_response

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_RANGES = re.compile(r"bytes=\s*(\d*)-(\d*)\s*(?:,\s*\d*-\d*\s*)*")
_BYTES = {"schema": {"type": "string", "format": "binary"}}


@router.get("", responses=problems(422), summary="Jobs, newest first")
async def list_jobs(
    caller: TheCaller, gateway: OpenGateway,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before.")
    ] = None,
) -> JobPage:
    """A page of jobs; pass its `next_cursor` for the next one. Jobs that arrive meanwhile shift nothing."""
    jobs = await gateway.ledger.page(limit, int(cursor) if cursor else None, owner=caller.owner)
    return await view_page(jobs, limit, gateway.ledger)


@router.get("/{job_id}", responses=problems(404, 422), summary="One job")
async def get_job(
    own: OwnJob, gateway: OpenGateway,
    wait: Annotated[int, Query(ge=0, description="Seconds to wait for the end; capped.", examples=[30])] = 0,
) -> Job:
    """The job as it is, or, with `wait`, once it has ended or the time is over."""
    job = await wait_until_ended(own.id, gateway.ledger, min(wait, gateway.settings.max_wait_s))
    return await view(job, gateway.ledger)


@router.post("/{job_id}/cancel", responses=problems(404, 409), summary="Cancel a job")
async def cancel_job(own: OwnJob, gateway: OpenGateway) -> Job:
    """Keep a queued job from starting, or stop a running one within one denoising step."""
    return await view(await cancel(own.id, gateway), gateway.ledger)


@router.delete("/{job_id}", status_code=204, responses=problems(404, 409), summary="Remove a job and its files")
async def delete_job(own: OwnJob, gateway: OpenGateway) -> None:
    """Forget an ended job, its video and its picture. One that still waits or runs is refused: cancel it first."""
    await remove(own.id, gateway)


@router.get(
    "/{job_id}/events", response_class=StreamingResponse, summary="Follow a job",
    responses={
        200: {"description": "A `Job` per event, under the event name of its state; ends with the job.",
              "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "Nothing after `Last-Event-ID`: the job has ended. Stop reconnecting."},
        **problems(404),
    },
)
async def job_events(
    job: OwnJob, gateway: OpenGateway, last_event_id: Annotated[str | None, Header(max_length=128)] = None,
) -> Response:
    """Server-sent events: the whole job at first and at every change (place in the queue, stage, step, time left).

    Reconnect with `Last-Event-ID`; what was missed is contained in the next event.
    """
    if job.finished and encode(await view(job, gateway.ledger))[1] == last_event_id:
        return Response(status_code=204)
    return StreamingResponse(
        event_stream(job.id, gateway.ledger, last_event_id, gateway.settings.heartbeat_s),
        media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/{job_id}/content", response_class=FileResponse, summary="The MP4, or the picture it began with",
    responses={
        200: {"description": "The file.", "content": {"video/mp4": _BYTES, "image/png": _BYTES, "image/jpeg": _BYTES}},
        206: {"description": "The wanted range of it."}, 304: {"description": "Unchanged."},
        **problems(404, 409, 416),
    },
)
@router.head("/{job_id}/content", include_in_schema=False)
async def get_content(
    job: OwnJob, request: Request, gateway: OpenGateway,
    variant: Annotated[Literal["video", "input"], Query(description="The video, or the checked picture.")] = "video",
) -> Response:
    """The bytes, with `ETag` and `Range`."""
    path, media_type, sha256 = _artifact(job, variant, gateway)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable",
               "X-Content-Type-Options": "nosniff"}
    if _matches(request.headers.get("if-none-match"), sha256):
        return Response(status_code=304, headers=headers)
    try:
        stat = await off_loop(path.stat)
    except FileNotFoundError:
        raise ProblemError(
            404, "file_missing", "The file is gone", "The job's file is no longer on disk.", job_id=job.id
        ) from None
    if not range_fits(request.headers.get("range"), stat.st_size):
        problem = Problem(
            status=416, code="range_not_satisfiable", title="Range outside the file", job_id=job.id,
            detail=f"The file has {stat.st_size} bytes: ask for a range within them, such as bytes=0-.",
        )
        return problem_response(problem, {"Content-Range": f"bytes */{stat.st_size}"})
    return FileResponse(
        path, headers=headers, media_type=media_type, stat_result=stat, filename=f"{job.id}{path.suffix}",
        content_disposition_type="inline",
    )


def range_fits(header: str | None, size: int) -> bool:
    """Whether a `Range` header can be served from a file of `size` bytes; without one everything can."""
    if header is None:
        return True
    if not _RANGES.fullmatch(header.strip()):
        return False
    for start, end in re.findall(r"(\d*)-(\d*)", header):
        if not start and not int(end or 0):
            return False
        if start and (int(start) >= size or (end and int(end) < int(start))):
            return False
    return True


def _matches(header: str | None, sha256: str) -> bool:
    return header is not None and any(tag.strip() in ("*", f'"{sha256}"', f'W/"{sha256}"') for tag in header.split(","))


def _artifact(job: JobRecord, variant: Literal["video", "input"], gateway: Gateway) -> tuple[Path, str, str]:
    if variant == "input":
        if job.picture is None:
            raise ProblemError(404, "no_picture", "No picture", "This job was made from words alone.", job_id=job.id)
        return gateway.files.path(job.id, job.picture.file), job.picture.media_type, job.picture.sha256
    if job.video is None:
        hint = "its error says why" if job.state == "failed" else "follow its events, or ask again with ?wait=30"
        raise ProblemError(
            409, "video_not_available", "There is no video",
            f"The job is {job.state}: {'it will have none' if job.finished else 'not yet'}; {hint}."
            if job.state != "canceled" else "The job was canceled: it has no video.", job_id=job.id,
        )
    return gateway.files.path(job.id, VIDEO_FILE), "video/mp4", job.video.sha256
