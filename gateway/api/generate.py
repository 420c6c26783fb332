"""`POST /generate`: the one call that matters."""

import re
from contextlib import nullcontext
from typing import Literal

from anyio.to_thread import run_sync as off_loop
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from contracts.errors import Problem
from contracts.jobs import Job
from gateway.api.access import REPLAYED, IdempotencyKey, OpenGateway, TheCaller, one_wait
from gateway.api.openapi import generate_body, problems
from gateway.edge.middleware import current_prefix
from gateway.jobs.job import JobRecord
from gateway.runtime import Gateway
from gateway.storage.files import VIDEO_FILE
from gateway.submit.bodies import read_submission
from web.edge import while_connected
from web.problems import problem_response

router = APIRouter(tags=["generate"])

POLL_AFTER_S = 2
_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})"?', re.IGNORECASE)
_Form = Literal["job", "video"]


@router.post(
    "/generate", response_model=Job, openapi_extra=generate_body(),
    summary="A picture, words or both in; a video out",
    responses={
        200: {"model": Job, "description": "The job ended while `Prefer: wait` lasted, or the MP4 itself.",
              "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}},
        202: {"model": Job, "description": "Accepted; `Location` is the job, `Retry-After` when to look."},
        **problems(404, 409, 413, 415, 422, 429, 502, 503, 504, 507),
    },
)
async def generate(
    request: Request, caller: TheCaller, gateway: OpenGateway, idempotency_key: IdempotencyKey = None
) -> Response:
    """Animate a picture (the prompt is written from it), render words alone, or both.

    With both, `enhance` = `auto` or `always` rewrites your words by what is seen in the picture, `never` keeps them as
    they are. Left out, size, length, steps, sampler and guidance are the model's own; `GET /v1/models` names every
    bound. The seed is drawn and shown where you send none.

    Headers: `Prefer: wait=N` answers when the job has ended or N seconds have passed, whichever is first;
    `Accept: video/mp4` waits and answers with the bytes, or with the problem of the job that failed;
    `Idempotency-Key` makes sending again safe: the same body answers with the same job, another body with 422.
    """
    wants_video = wanted_form(request.headers.get("accept", "")) == "video"
    wait_s = preferred_wait_s(request.headers.get("prefer", ""))
    # Before anything is accepted: who is refused here has made no job, and may ask again.
    with one_wait(request, caller, gateway) if wants_video or wait_s else nullcontext():
        async with read_submission(request, gateway.intake) as submission:
            job, replayed = await gateway.submitter.accept(submission, caller, idempotency_key)
        if wants_video:
            response = await while_connected(request, _answer_with_video(job, gateway))
        else:
            answering = _answer_with_job(job, wait_s, gateway)
            response = await answering if wait_s is None else await while_connected(request, answering)
    if replayed:
        response.headers[REPLAYED] = "true"
    return response


def wanted_form(accept_header: str) -> _Form:
    """`video` where the caller ranks `video/mp4` above JSON; without a wish, the job."""
    quality: dict[str, float] = {}
    for part in accept_header.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weights = [p[2:] for p in parameters if p.startswith("q=")]
        try:
            quality[kind] = float(weights[0]) if weights else 1.0
        except ValueError:
            quality[kind] = 0.0
    video = max(quality.get("video/mp4", 0.0), quality.get("video/*", 0.0))
    return "video" if video > quality.get("application/json", 0.0) else "job"


def preferred_wait_s(prefer_header: str) -> int | None:
    """The N of `Prefer: wait=N` (RFC 7240), `None` where there is none."""
    found = _WAIT.search(prefer_header)
    return int(found[1]) if found else None


async def _answer_with_job(job: JobRecord, wait_s: int | None, gateway: Gateway) -> Response:
    headers = {"Location": f"{current_prefix()}/v1/jobs/{job.id}", "Vary": "Accept, Prefer"}
    if wait_s is not None:
        wait_s = min(wait_s, gateway.settings.max_wait_s)
        headers["Preference-Applied"] = f"wait={wait_s}"
        job = await gateway.ledger.ended(job.id, wait_s)
    if not job.finished:
        headers["Retry-After"] = str(POLL_AFTER_S)
    shown = await gateway.ledger.shown(job)
    return _json(shown, 200 if job.finished else 202, headers)


def _json(shown: Job, status: int, headers: dict[str, str]) -> Response:
    return Response(shown.model_dump_json(), status, headers, media_type="application/json")


async def _answer_with_video(job: JobRecord, gateway: Gateway) -> Response:
    job = await gateway.ledger.ended(job.id, gateway.settings.max_bytes_wait_s)
    base = f"{current_prefix()}/v1/jobs/{job.id}"
    location = {"Location": base, "Vary": "Accept, Prefer"}
    if job.video is not None:
        location |= {"ETag": f'"{job.video.sha256}"', "Content-Location": f"{base}/content"}
        path = gateway.files.path(job.id, VIDEO_FILE)
        await off_loop(gateway.files.bring, path)
        return FileResponse(
            path, headers=location, media_type="video/mp4",
            filename=f"{job.id}.mp4", content_disposition_type="inline",
        )
    if job.error is not None:
        return problem_response(job.error, location)
    if job.finished:
        canceled = Problem(
            status=409, code="job_canceled", title="The job was canceled", job_id=job.id,
            detail="Somebody canceled this job while you waited; send the request again.",
        )
        return problem_response(canceled, location)
    shown = await gateway.ledger.shown(job)
    return _json(shown, 202, {**location, "Retry-After": str(POLL_AFTER_S)})
