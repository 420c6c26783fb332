"""The jobs: look, wait, follow, fetch, cancel, remove."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

from anyio.to_thread import run_sync as off_loop
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import AfterValidator

from contracts.jobs import TERMINAL_JOB_STATES, Job, JobPage, JobState, Provenance
from gateway.api.access import OpenGateway, OwnJob, TheCaller, WhileAnswered, one_wait
from gateway.api.media.content import FILE_RESPONSES, Variant, serve, video_path
from gateway.api.openapi import problems
from gateway.jobs.job import JobNotFound, JobRecord
from gateway.jobs.ledger import Ledger
from gateway.jobs.store import MAX_SEQUENCE
from gateway.storage.provenance.reading import read_provenance
from web.edge import while_connected

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EVENT = {
    "type": "object", "required": ["data", "event", "id"],
    "properties": {
        "data": {"type": "string", "contentMediaType": "application/json",
                 "contentSchema": {"$ref": "#/components/schemas/Job"}},
        "event": {"type": "string", "description": "The job's state."}, "id": {"type": "string"},
    },
}


def _known_number(cursor: str | None) -> str | None:
    if cursor is not None and int(cursor) > MAX_SEQUENCE:
        raise ValueError("No page ends there")
    return cursor


@router.get("", responses=problems(422), summary="Jobs, newest first")
async def list_jobs(
    caller: TheCaller, gateway: OpenGateway,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs on a page.")] = 20,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before."),
        AfterValidator(_known_number),
    ] = None,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
) -> JobPage:
    """A page of jobs; pass its `next_cursor` for the next one. Jobs that arrive meanwhile shift nothing."""
    jobs = await gateway.ledger.page(limit, int(cursor) if cursor else None, owner=caller.owner, state=state)
    return await gateway.ledger.shown_page(jobs, limit)


@router.get("/{job_id}", responses=problems(404, 422, 429), summary="One job")
async def get_job(
    request: Request, own: OwnJob, caller: TheCaller, gateway: OpenGateway,
    wait: Annotated[int, Query(ge=0, description="Seconds to wait for the end; capped.", examples=[30])] = 0,
) -> Job:
    """The job as it is, or, with `wait`, once it has ended or the time is over."""
    wait_s = min(wait, gateway.settings.max_wait_s)
    if not wait_s or own.finished:
        return await gateway.ledger.shown(own)
    with one_wait(request, caller, gateway):
        job = await while_connected(request, gateway.ledger.ended(own.id, wait_s))
    return await gateway.ledger.shown(job)


@router.post("/{job_id}/cancel", responses=problems(404, 409), summary="Cancel a job")
async def cancel_job(own: OwnJob, gateway: OpenGateway) -> Job:
    """Keep a queued job from starting, or stop a running one within one denoising step."""
    return await gateway.ledger.shown(await gateway.cancellation.cancel(own.id))


@router.delete("/{job_id}", status_code=204, responses=problems(404, 409), summary="Remove a job and its files")
async def delete_job(own: OwnJob, gateway: OpenGateway) -> None:
    """Forget an ended job, its video and its picture. One that still waits or runs is refused: cancel it first."""
    await gateway.cancellation.remove(own.id)


@router.get(
    "/{job_id}/events", response_class=StreamingResponse, summary="Follow a job", dependencies=[WhileAnswered],
    responses={
        200: {"description": "A `Job` per event, under the event name of its state; ends with the job.",
              "content": {"text/event-stream": {"itemSchema": _EVENT}}},
        204: {"description": "Nothing after `Last-Event-ID`: the job has ended. Stop reconnecting."},
        **problems(404, 429),
    },
)
async def job_events(
    job: OwnJob, request: Request, gateway: OpenGateway,
    last_event_id: Annotated[str | None, Header(max_length=128)] = None,
) -> Response:
    """Server-sent events: the whole job at first and at every change (place in the queue, stage, step, time left).

    Reconnect with `Last-Event-ID`; what was missed is contained in the next event.
    """
    if job.finished and _encode(await gateway.ledger.shown(job))[1] == last_event_id:
        return Response(status_code=204)
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    return StreamingResponse(
        _event_stream(job.id, gateway.ledger, last_event_id, gateway.settings.heartbeat_s),
        media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@router.get(
    "/{job_id}/provenance", summary="How the video says it was made", responses=problems(404, 409, 410),
)
async def get_provenance(job: OwnJob, gateway: OpenGateway) -> Provenance:
    """What the video's own C2PA manifest says, and whether the file is still as it was signed."""
    path = await video_path(job, gateway)
    return await off_loop(read_provenance, path)


@router.get(
    "/{job_id}/content", response_class=FileResponse, summary="The MP4, or a picture that goes with it",
    responses={**FILE_RESPONSES, **problems(404, 409, 410, 412, 416, 422)},
)
async def get_content(
    job: OwnJob, request: Request, gateway: OpenGateway,
    variant: Annotated[
        Variant,
        Query(description="The video, its first frame, a sheet of frames from all of it, or the checked picture."),
    ] = "video",
) -> Response:
    """The bytes, with `ETag` and `Range`."""
    return await serve(job, variant, request, gateway)


async def _event_stream(
    job_id: str, ledger: Ledger, last_event_id: str | None, heartbeat_s: float
) -> AsyncIterator[bytes]:
    """The job as SSE: whole at first and at every change, under the event name of its state; ends with the job.

    An event's id names its content, so a client that reconnects (to any process, at any time later) is not told again
    what it knows, and what it missed is contained in the next event.
    """
    told = last_event_id
    with ledger.live.watch(job_id) as watcher:
        try:
            record: JobRecord | None = None
            while True:
                outdated = watcher.outdated
                watcher.up_to_date()
                if record is None or outdated or not ledger.waits(record):
                    record = await ledger.get(job_id)
                job = await ledger.shown(record)
                ledger.live.waits_in_queue(job_id, job.state == "queued")
                body, event_id = _encode(job)
                if event_id != told:
                    told = event_id
                    yield format_sse_event(data_str=body, event=job.state, id=event_id)
                if job.state in TERMINAL_JOB_STATES:
                    return
                if not await watcher.wait(heartbeat_s):
                    yield KEEPALIVE_COMMENT
        except JobNotFound:
            return  # removed while it was followed


def _encode(job: Job) -> tuple[str, str]:
    """The data of an event, and the id that names it."""
    body = job.model_dump_json(exclude_none=True)
    return body, hashlib.sha256(body.encode()).hexdigest()[:16]
