"""One job: describe → render → keep. Each part can be run again after a crash without doing its work twice.

What goes wrong ends here, in one place: a job's own fault fails it, everything else releases it to the queue, which
gives it out again. Every claim of a job is a run of its own that begins where the one before came to.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.to_thread import run_sync as off_loop

from contracts.describe import MAX_TEXT_CHARS, DescribeRequest, DescribeTask
from contracts.errors import Problem
from contracts.jobs import TERMINAL_JOB_STATES, JobProgress, VideoFile
from contracts.videos import RenderResult, RenderStatus, VideoRequest
from gateway.jobs.job import ClaimLost, IllegalTransition, JobNotFound, JobRecord, StoredPicture
from gateway.jobs.ledger import Ledger
from gateway.run.failures import JobFailed, RenderFailed, judge, render_problem, stopped_elsewhere, timeout_problem
from gateway.run.fetching import fetch_pictures, fetch_video, remove_fetched
from gateway.run.settle import Settling, was_canceled
from gateway.services.errors import ServiceError
from gateway.services.verdicts import PolicyRefused, judged, with_verdicts
from gateway.services.video import Renderers
from gateway.services.vl import Prompter
from gateway.storage.files import EXTENDED_FILE, ChecksumMismatch, LocalFiles
from gateway.storage.provenance.marking import Marker
from web.calls import JOB_ID, REQUEST_ID, TRACEPARENT, working

log = logging.getLogger(__name__)

Answer = dict[str, Any]
Step = Callable[[str, Callable[[], Awaitable[Answer]]], Awaitable[Answer]]
"""Runs a named part of a job once and remembers its answer (JSON): run again, it returns what it remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What carrying out a job needs."""

    ledger: Ledger
    files: LocalFiles
    prompts: Prompter
    video: Renderers
    settling: Settling
    render_timeout_s: float
    marker: Marker | None
    policy: bool
    """Whether what was sent is judged."""


class _Ended(Exception):
    """This run is over: the job has ended, or waits again."""


async def run_job(parts: Parts, job_id: str, claim: int, step: Step) -> None:
    """Carry a claimed job to its end, or release it. Never raises for what goes wrong with the job: the job says it."""

    async def do(part: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        answer = await step(part.__name__, partial(_carry_out, part, job_id, claim, parts, *args))
        if answer["ended"]:
            raise _Ended
        return answer["value"]

    try:
        await do(describe)
        result = await do(render)
        await do(keep, result)
    except _Ended:
        return


async def describe(job: JobRecord, parts: Parts) -> None:
    """Caption the picture and write, or enhance, the prompt; nothing of it where a claim before this one has."""
    stage = "describing" if job.actual_prompt is None else "rendering"
    if job.state == "queued":
        job = await parts.ledger.move(job.id, "running", stage=stage, claim=job.claim)
    elif job.stage != stage:  # the process was killed between the end of this part and the engine's note of it
        job = await parts.ledger.note(job.id, stage=stage, claim=job.claim)
    if job.actual_prompt is not None:
        return
    started = time.monotonic()
    texts = await _ask(job, parts)
    prompt = texts.get("prompt", job.request.prompt or "")[:MAX_TEXT_CHARS].strip()
    if not prompt:
        raise ServiceError("vl_service", "failed", "wrote an empty prompt")
    await parts.ledger.note(
        job.id, stage="rendering", actual_prompt=prompt, caption=texts.get("caption"), render_attempt=0,
        timings={"describing": round(time.monotonic() - started, 3)}, claim=job.claim,
    )


async def _ask(job: JobRecord, parts: Parts) -> dict[str, str]:
    """The texts by the kind of their task; without a caption where nothing else was asked and it cannot be had."""
    asked = tasks = describe_tasks(job)
    if parts.policy:
        tasks = with_verdicts(asked, [(job.request.prompt, job.request.instruction)])
    if not tasks:
        return {}
    request = DescribeRequest(
        image=await _picture(job, job.picture, parts.files), tasks=tasks, language=job.parameters.language,
        profile=job.parameters.profile, seed=job.parameters.seed,
    )
    try:
        results = await parts.prompts.describe(
            request, job.picture.sha256 if job.picture else None, any_seed=job.request.seed is None
        )
        warnings = [warning for result in results[:len(asked)] for warning in result.warnings]
        if parts.policy:
            results, to_review = judged(results, len(asked))
            warnings = to_review + warnings
        for warning in dict.fromkeys(warnings):
            await parts.ledger.note(job.id, warning=warning, claim=job.claim)
        return {result.kind: result.text for result in results}
    except PolicyRefused as refused:
        raise JobFailed(refused.problem) from refused
    except ServiceError as error:
        if job.needs_vl or parts.policy or error.kind == "busy":
            raise
        await parts.ledger.note(job.id, warning=f"Not captioned: {error.detail}", claim=job.claim)
        return {}


async def render(job: JobRecord, parts: Parts) -> dict[str, Any]:
    """Have the video rendered under the job's id; returns the `RenderResult`."""
    first, last = [await _picture(job, picture, parts.files) for picture in (job.picture, job.last_picture)]
    clip = None if job.request.extend_from is None else await off_loop(parts.files.read, job.id, EXTENDED_FILE)
    request = video_request(job, first, last, clip)
    started, limit = time.monotonic(), asyncio.timeout(parts.render_timeout_s)
    try:
        async with limit:
            result = _result_of(await _follow(job.id, request, parts))
    except TimeoutError:
        if not limit.expired():
            raise  # of a call to the disk or the like
        await parts.video.stop(job.id)
        raise JobFailed(timeout_problem(parts.render_timeout_s)) from None
    except asyncio.CancelledError:
        if await was_canceled(job.id, parts.ledger):  # else the gateway stops, and the render goes on
            await parts.video.stop(job.id)
        raise
    for warning in result.warnings:
        await parts.ledger.note(job.id, warning=warning, claim=job.claim)
    await parts.ledger.note(
        job.id, stage="saving", claim=job.claim,
        timings={"rendering": round(time.monotonic() - started, 3)}
        | {f"render.{stage}": round(seconds, 3) for stage, seconds in result.timings.items() if stage != "total"},
        # Only what is not part of the render's body, so that this part, run again, still finds its render.
        parameters=job.parameters.model_copy(update={
            "revision": result.revision, "engine": result.engine, "engine_reason": result.engine_reason or None,
        }),
    )
    return result.model_dump(mode="json")


async def keep(job: JobRecord, parts: Parts, rendered: dict[str, Any]) -> None:
    """Bring the MP4 to our disk, complete the job, and let the video service forget the render."""
    result = RenderResult.model_validate(rendered)
    started = time.monotonic()
    place = await parts.video.current(job.id)
    if place is None:
        raise ServiceError("video_service", "not_found", "is no longer configured where this was rendered")
    try:
        stored, unmarked = await fetch_video(job, result, place.client, parts.files, parts.marker)
    except ChecksumMismatch as error:
        await parts.video.stop(job.id)  # whatever is asked of it there comes from the same damaged file
        raise ServiceError("video_service", "failed", "sent a video whose checksum does not match") from error
    if unmarked is not None:
        await parts.ledger.note(job.id, warning=unmarked, claim=job.claim)
    pictures = await fetch_pictures(job.id, result, place.client, parts.files)
    try:
        await parts.ledger.move(
            job.id, "completed", timings={"saving": round(time.monotonic() - started, 3)}, claim=job.claim,
            thumbnail=pictures["thumbnail"], spritesheet=pictures["spritesheet"],
            video=VideoFile(
                num_bytes=stored.num_bytes, sha256=stored.sha256, width=result.width, height=result.height,
                num_frames=result.num_frames, fps=result.fps, duration_s=round(result.num_frames / result.fps, 4),
            ),
        )
    except IllegalTransition as error:
        if error.present != "completed":  # by another executor, whose files these are then
            await remove_fetched(job.id, parts.files)
        raise
    except JobNotFound:
        await remove_fetched(job.id, parts.files)
        raise
    if job.request.extend_from is not None:  # the video begins with it
        await off_loop(parts.files.remove, job.id, EXTENDED_FILE)
    await parts.video.stop(job.id)


def describe_tasks(job: JobRecord) -> list[DescribeTask]:
    """What is asked about the picture: always a caption; a prompt unless the caller's words stand as they are."""
    tasks = [DescribeTask(kind="caption")] if job.picture is not None else []
    if job.needs_vl:
        tasks.append(
            DescribeTask(kind="prompt", user_prompt=job.request.prompt, instruction=job.request.instruction,
                         template=job.request.template))
    return tasks


def video_request(
    job: JobRecord, image: bytes | None, last_image: bytes | None = None, extends: bytes | None = None
) -> VideoRequest:
    """The render of a job: the same job always gives the same body, so that a repeated PUT attaches."""
    wanted = job.parameters
    return VideoRequest(
        prompt=job.actual_prompt or "", negative_prompt=job.request.negative_prompt or "", image=image,
        model=wanted.model, width=wanted.width, height=wanted.height, num_frames=wanted.num_frames, fps=wanted.fps,
        steps=wanted.steps, sampler=wanted.sampler, guidance_scale=wanted.guidance_scale,
        guidance_scale_2=wanted.guidance_scale_2, loras=wanted.loras, seed=wanted.seed, last_image=last_image,
        extends=extends, preview=job.request.preview,
    )


async def _carry_out(
    part: Callable[..., Awaitable[Any]], job_id: str, claim: int, parts: Parts, *args: Any
) -> Answer:
    """Run one part; whatever goes wrong ends on the job. This is the one place that tells what passes from what fails.
    """
    try:
        return {"ended": False, "value": await _run(part, job_id, claim, parts, *args)}
    except (ClaimLost, IllegalTransition, JobNotFound):
        return {"ended": True}  # released, canceled, removed or completed elsewhere meanwhile
    except Exception as error:
        verdict = judge(error)
        if isinstance(verdict, Problem) and not isinstance(error, JobFailed | RenderFailed | ServiceError):
            log.exception("job %s failed in %s", job_id, part.__name__, extra={"job_id": job_id})
    await parts.settling.settle(job_id, claim, verdict)
    return {"ended": True}


async def _run(part: Callable[..., Awaitable[Any]], job_id: str, claim: int, parts: Parts, *args: Any) -> Any:
    job = await parts.ledger.claimed(job_id, claim)
    call = {REQUEST_ID: job.request_id, TRACEPARENT: job.traceparent or "", JOB_ID: job_id}
    with working(part.__name__, call):
        try:
            return await part(job, parts, *args)
        except IllegalTransition as error:
            if error.present in TERMINAL_JOB_STATES:
                raise
            # Another executor has begun it: for a moment two may have the same claim, and either may carry it on.
            return await part(await parts.ledger.claimed(job_id, claim), parts, *args)


async def _follow(job_id: str, request: VideoRequest, parts: Parts) -> RenderStatus:
    """PUT the render and relay its progress until it ends."""
    try:
        place = await parts.video.put(job_id, request)
    except ServiceError as error:
        if error.kind == "conflict":  # as after an upgrade that reads the same request differently
            await parts.video.stop(job_id)
        raise
    status = RenderStatus(id=job_id, state="queued")
    try:
        async with aclosing(place.client.watch(job_id)) as statuses:
            async for status in statuses:
                parts.ledger.live.report(job_id, JobProgress(
                    stage="rendering", queue_position=status.queue_position, step=status.step,
                    num_steps=status.num_steps, fraction=status.progress, eta_s=status.eta_s,
                    preview=None if status.preview is None else f"data:image/jpeg;base64,{status.preview}",
                ))
    except ServiceError as error:
        if error.kind == "unavailable":
            place.failed(error.said, silent=error.heard != "answered")
        raise
    return status


def _result_of(status: RenderStatus) -> RenderResult:
    if status.state == "completed" and status.result is not None:
        return status.result
    if status.state == "failed":
        raise RenderFailed(render_problem(status.error))
    raise JobFailed(stopped_elsewhere(status.state))


async def _picture(job: JobRecord, picture: StoredPicture | None, files: LocalFiles) -> bytes | None:
    return None if picture is None else await off_loop(files.read, job.id, picture.file)
