"""The OpenAI Videos API over the same jobs: its SDK is a client of this server."""

from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from contracts.jobs import JobProgress, JobState
from contracts.openai.pages import Order
from contracts.openai.videos import Video, VideoDeleted, VideoError, VideoPage, VideoRemix, VideoStatus
from gateway.api.access import REPLAYED, After, IdempotencyKey, OpenGateway, PageSize, TheCaller, own_job
from gateway.api.media.content import FILE_RESPONSES, serve
from gateway.api.openapi import openai_errors, remix_body, video_body
from gateway.jobs.job import IllegalTransition, JobRecord
from gateway.jobs.ledger import present
from gateway.runtime import Gateway
from gateway.submit.bodies import read_fields, read_video
from gateway.submit.remix import remix_of

router = APIRouter(prefix="/v1/videos", tags=["OpenAI videos"])

VideoId = Annotated[str, Path(description="The video's `id`, which is its job's.", max_length=64)]


async def _own_video(video_id: VideoId, caller: TheCaller, gateway: OpenGateway) -> JobRecord:
    return await own_job(video_id, caller, gateway)


OwnVideo = Annotated[JobRecord, Depends(_own_video)]
# An expired video was completed; `expires_at` says since when its files are gone.
_STATUS: dict[JobState, VideoStatus] = {
    "queued": "queued", "running": "in_progress", "completed": "completed", "expired": "completed",
}
_CREATED = openai_errors(400, 404, 409, 413, 429, 500, 502, 503)


@router.post("", response_model=Video, responses=_CREATED, openapi_extra=video_body(), summary="Create a video")
async def create_video(
    request: Request, caller: TheCaller, gateway: OpenGateway, idempotency_key: IdempotencyKey = None
) -> Response:
    """As in OpenAI's API, with the models, sizes and lengths of this server; further fields of `POST /generate` are
    taken, too (`extra_body` in the SDK).
    """
    async with read_video(request, gateway.intake) as submission:
        job, replayed = await gateway.submitter.accept(submission, caller, idempotency_key)
    return await _answer(job, replayed, gateway)


@router.get("", responses=openai_errors(400, 404), summary="Videos")
async def list_videos(
    caller: TheCaller, gateway: OpenGateway, after: After = None, limit: PageSize = 20,
    order: Annotated[Order, Query(description="By the time of creation.")] = "desc",
) -> VideoPage:
    """A page of videos, newest first unless asked otherwise."""
    beyond = None if after is None else (await own_job(after, caller, gateway)).sequence
    jobs = await gateway.ledger.page(limit + 1, beyond, owner=caller.owner, oldest_first=order == "asc")
    return VideoPage.of([_present(job, gateway.ledger.live.progress(job.id)) for job in jobs], limit)


@router.get("/{video_id}", responses=openai_errors(400, 404), summary="One video")
async def retrieve_video(job: OwnVideo, gateway: OpenGateway) -> Video:
    """The job in OpenAI's words; `GET /v1/jobs/{id}` says more."""
    return _present(job, gateway.ledger.live.progress(job.id))


@router.delete("/{video_id}", responses=openai_errors(400, 404, 409), summary="Delete a video")
async def delete_video(job: OwnVideo, gateway: OpenGateway) -> VideoDeleted:
    """Remove the video and its files. One that still waits or renders is canceled first, for this API has no cancel."""
    if not job.finished:
        with suppress(IllegalTransition):  # it ended meanwhile
            await gateway.cancellation.cancel(job.id)
    await gateway.cancellation.remove(job.id)
    return VideoDeleted(id=job.id)


@router.get(
    "/{video_id}/content", response_class=FileResponse, summary="The MP4, or a picture of it",
    responses={**FILE_RESPONSES, **openai_errors(400, 404, 409, 410, 412, 416)},
)
async def download_video(
    job: OwnVideo, request: Request, gateway: OpenGateway,
    variant: Annotated[Literal["video", "thumbnail", "spritesheet"], Query()] = "video",
) -> Response:
    """The bytes, with `ETag` and `Range`."""
    return await serve(job, variant, request, gateway)


@router.post(
    "/{video_id}/remix", response_model=Video, responses=_CREATED, openapi_extra=remix_body(), summary="Remix a video"
)
async def remix_video(
    job: OwnVideo, request: Request, caller: TheCaller, gateway: OpenGateway, idempotency_key: IdempotencyKey = None
) -> Response:
    """A completed video once more with another prompt: the same picture, seed, size, length and sampling."""
    async with read_fields(request, gateway.intake, VideoRemix.model_validate) as asked:
        remixed, replayed = await gateway.submitter.accept(remix_of(job, asked.prompt), caller, idempotency_key)
    return await _answer(remixed, replayed, gateway)


async def _answer(job: JobRecord, replayed: bool, gateway: Gateway) -> Response:
    video = _present(job, gateway.ledger.live.progress(job.id))
    return JSONResponse(video.model_dump(mode="json"), headers={REPLAYED: "true"} if replayed else None)


def _present(job: JobRecord, live: JobProgress | None) -> Video:
    """The job as a `video`; what ended in any other way than well has failed, and says how."""
    used, progress = job.parameters, present(job, live, None).progress
    return Video(
        id=job.id, status=_STATUS.get(job.state, "failed"), progress=int(progress.fraction * 100),
        created_at=int(job.created_at),
        completed_at=int(job.finished_at) if job.video is not None and job.finished_at else None,
        expires_at=int(job.expired_at) if job.expired_at else None,
        model=used.model, prompt=job.request.prompt, seconds=f"{used.num_frames / used.fps:g}",
        size=f"{used.width}x{used.height}", remixed_from_video_id=job.remixed_from, error=_error(job),
    )


def _error(job: JobRecord) -> VideoError | None:
    if job.state in _STATUS:
        return None
    if job.error is None:
        return VideoError(code=job.state, message=f"The video is {job.state}.")
    return VideoError(code=job.error.code, message=job.error.detail)
