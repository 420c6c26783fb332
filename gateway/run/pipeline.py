"""One job: describe → render → keep. Each part can be run again after a crash without doing its work twice."""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from contracts.describe import MAX_TEXT_CHARS, DescribeRequest, DescribeTask
from contracts.errors import Problem
from contracts.jobs import TERMINAL_JOB_STATES, JobProgress, VideoFile
from contracts.videos import RenderResult, RenderStatus, VideoRequest
from gateway.jobs.job import IllegalTransition, JobNotFound, JobRecord
from gateway.jobs.ledger import Ledger
from gateway.run.failures import JobFailed, render_problem, service_problem, timeout_problem, unexpected_problem
from gateway.run.previews import PREVIEW_FILES, keep_previews
from gateway.services.clients import RetryPolicy, ServiceError, VideoClient
from gateway.services.prompting import Prompter
from gateway.services.video import Place, Renderers
from gateway.storage.files import VIDEO_FILE, ChecksumMismatch, LocalFiles
from gateway.threads import off_loop
from web.calls import Call, work_on

log = logging.getLogger(__name__)

MAX_RENDER_ATTEMPTS = 2
# The same request would fail the same way: rendering it again only makes its owner wait longer.
_FAILS_AGAIN = frozenset({
    "invalid_request", "unreadable_image", "out_of_memory", "disk_full", "render_failed", "deadline_exceeded",
})

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
    retries: RetryPolicy
    render_timeout_s: float


class _Ended(Exception):
    """The job has reached its end: failed, canceled or removed."""


async def run_job(job_id: str, parts: Parts, step: Step) -> None:
    """Carry a job from `queued` to its end. Never raises for what goes wrong with the job: the job says it."""

    async def do(part: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        answer = await step(part.__name__, partial(_carry_out, part, job_id, parts, *args))
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
    """Caption the picture and write, or enhance, the prompt."""
    if job.state == "queued":
        job = await parts.ledger.move(job.id, "running", stage="describing")
    elif job.stage != "describing":  # the process was killed between the end of this part and the engine's note of it
        job = await parts.ledger.note(job.id, stage="describing")
    tasks = describe_tasks(job)
    started = time.monotonic()
    texts: dict[str, str] = {}
    if tasks:
        request = DescribeRequest(
            image=await _picture(job, parts.files), tasks=tasks, language=job.parameters.language,
            profile=job.parameters.profile, seed=job.parameters.seed,
        )
        try:
            results = await parts.prompts.describe(
                request, job.picture.sha256 if job.picture else None, any_seed=job.request.seed is None
            )
            texts = {result.kind: result.text for result in results}
            for warning in dict.fromkeys(warning for result in results for warning in result.warnings):
                await parts.ledger.note(job.id, warning=warning)
        except ServiceError as error:
            if any(task.kind == "prompt" for task in tasks):
                raise
            await parts.ledger.note(job.id, warning=f"Not captioned: {service_problem(error).detail}")
    prompt = texts.get("prompt", job.request.prompt or "")[:MAX_TEXT_CHARS].strip()
    if not prompt:
        raise ServiceError("vl_service", "failed", "wrote an empty prompt")
    await parts.ledger.note(
        job.id, stage="rendering", actual_prompt=prompt, caption=texts.get("caption"),
        timings={"describing": round(time.monotonic() - started, 3)},
    )


async def render(job: JobRecord, parts: Parts) -> dict[str, Any]:
    """Have the video rendered under the job's id; returns the `RenderResult`."""
    request = video_request(job, await _picture(job, parts.files))
    started = time.monotonic()
    try:
        async with asyncio.timeout(parts.render_timeout_s):
            result = await _render_to_the_end(job, request, parts)
    except TimeoutError:
        await parts.video.stop(job.id)
        raise JobFailed(timeout_problem(parts.render_timeout_s)) from None
    except asyncio.CancelledError:
        if await _was_canceled(job.id, parts.ledger):  # else the gateway stops, and the render goes on
            await parts.video.stop(job.id)
        raise
    for warning in result.warnings:
        await parts.ledger.note(job.id, warning=warning)
    await parts.ledger.note(
        job.id, stage="saving",
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
    place = await parts.retries.run(lambda: _download(job.id, parts, result))
    previews = await keep_previews(job.id, parts.files, place, (result.width, result.height))
    try:
        await parts.ledger.move(
            job.id, "completed", timings={"saving": round(time.monotonic() - started, 3)},
            thumbnail=previews["thumbnail"], spritesheet=previews["spritesheet"],
            video=VideoFile(
                num_bytes=result.num_bytes, sha256=result.sha256, width=result.width, height=result.height,
                num_frames=result.num_frames, fps=result.fps, duration_s=round(result.num_frames / result.fps, 4),
            ),
        )
    except IllegalTransition as error:
        if error.present != "completed":  # by another executor, whose files these are then
            await _remove_video(job.id, parts.files)
        raise
    except JobNotFound:
        await _remove_video(job.id, parts.files)
        raise
    await parts.video.stop(job.id)


async def _remove_video(job_id: str, files: LocalFiles) -> None:
    for name in (VIDEO_FILE, *PREVIEW_FILES.values()):
        await off_loop(files.remove, job_id, name)


def describe_tasks(job: JobRecord) -> list[DescribeTask]:
    """What is asked about the picture: always a caption; a prompt unless the caller's words stand as they are."""
    asked, has_picture = job.request, job.picture is not None
    enhances = asked.enhance == "always" or (asked.enhance == "auto" and (has_picture or bool(asked.instruction)))
    tasks = [DescribeTask(kind="caption")] if has_picture else []
    if enhances or asked.prompt is None:
        tasks.append(DescribeTask(kind="prompt", user_prompt=asked.prompt, instruction=asked.instruction))
    return tasks


def video_request(job: JobRecord, image: str | None) -> VideoRequest:
    """The render of a job: the same job always gives the same body, so that a repeated PUT attaches."""
    wanted = job.parameters
    return VideoRequest(
        prompt=job.actual_prompt or "", negative_prompt=job.request.negative_prompt or "", image=image,
        model=wanted.model, width=wanted.width, height=wanted.height, num_frames=wanted.num_frames, fps=wanted.fps,
        steps=wanted.steps, sampler=wanted.sampler, guidance_scale=wanted.guidance_scale,
        guidance_scale_2=wanted.guidance_scale_2, seed=wanted.seed,
    )


async def _carry_out(part: Callable[..., Awaitable[Any]], job_id: str, parts: Parts, *args: Any) -> Answer:
    """Run one part; whatever goes wrong ends on the job."""
    try:
        job = await parts.ledger.get(job_id)
        work_on(Call.begun(request_id=job.request_id, traceparent=job.traceparent, job_id=job_id))
        if job.finished:
            return {"ended": True}
        try:
            return {"ended": False, "value": await part(job, parts, *args)}
        except IllegalTransition as error:
            if error.present in TERMINAL_JOB_STATES:
                raise
            # Another executor has begun it: for a moment two may have the same job, and either may carry it to its end.
            return {"ended": False, "value": await part(await parts.ledger.get(job_id), parts, *args)}
    except (IllegalTransition, JobNotFound):
        return {"ended": True}  # canceled, removed or completed elsewhere meanwhile
    except JobFailed as error:
        problem = error.problem
    except ServiceError as error:
        problem = service_problem(error)
    except Exception:
        log.exception("job %s failed in %s", job_id, part.__name__, extra={"job_id": job_id})
        problem = unexpected_problem()
    await _fail(job_id, parts.ledger, problem)
    return {"ended": True}


async def _fail(job_id: str, ledger: Ledger, problem: Problem) -> None:
    log.warning("job %s failed: %s", job_id, problem.detail, extra={"job_id": job_id, "code": problem.code})
    try:
        await ledger.move(job_id, "failed", error=problem.model_copy(update={"job_id": job_id}))
    except (IllegalTransition, JobNotFound):
        return  # it was canceled or removed before it could fail


async def _render_to_the_end(job: JobRecord, request: VideoRequest, parts: Parts) -> RenderResult:
    attempt = job.render_attempt
    while True:
        status = await _follow(job.id, request, parts)
        if status.state == "completed" and status.result is not None:
            return status.result
        problem = render_problem(status.error) if status.state == "failed" else _stopped_elsewhere(status)
        attempt += 1
        if attempt >= MAX_RENDER_ATTEMPTS or status.state != "failed" or problem.code in _FAILS_AGAIN:
            raise JobFailed(problem)
        await parts.ledger.note(
            job.id, render_attempt=attempt, warning=f"The render was begun again: {problem.detail}"
        )


async def _follow(job_id: str, request: VideoRequest, parts: Parts) -> RenderStatus:
    """PUT the render and relay its progress until it ends, elsewhere if its service is gone for good."""
    while True:  # bounded by the render's deadline
        place = await parts.video.put(job_id, request)
        try:
            return await _watch(job_id, place.client, parts.ledger)
        except ServiceError as error:
            if error.kind == "not_found":
                # It lost the render, as after a restart with an empty disk: that counts as a failed attempt.
                return RenderStatus(id=job_id, state="failed", error=service_problem(error))
            if error.kind != "unavailable" or not await parts.video.can_go_elsewhere(job_id, request):
                raise


async def _watch(job_id: str, client: VideoClient, ledger: Ledger) -> RenderStatus:
    status = RenderStatus(id=job_id, state="queued")
    async with aclosing(client.watch(job_id)) as statuses:
        async for status in statuses:
            ledger.live.report(job_id, JobProgress(
                stage="rendering", queue_position=status.queue_position, step=status.step,
                num_steps=status.num_steps, fraction=status.progress, eta_s=status.eta_s,
            ))
    return status


async def _download(job_id: str, parts: Parts, result: RenderResult) -> Place:
    """Fetch the MP4 from where it was rendered; returns that place."""
    place = await parts.video.current(job_id)
    if place is None:
        raise ServiceError("video_service", "not_found", "is no longer configured where this was rendered")
    try:
        await parts.files.receive(job_id, VIDEO_FILE, place.client.content(job_id), result.sha256)
    except ChecksumMismatch as error:
        raise ServiceError("video_service", "unavailable", "sent a video whose checksum does not match") from error
    return place


async def _was_canceled(job_id: str, ledger: Ledger) -> bool:
    try:
        return (await ledger.get(job_id)).state == "canceled"
    except JobNotFound:
        return True


async def _picture(job: JobRecord, files: LocalFiles) -> str | None:
    if job.picture is None:
        return None
    path = files.path(job.id, job.picture.file)
    await off_loop(files.bring, path)
    return await off_loop(lambda: base64.b64encode(path.read_bytes()).decode("ascii"))


def _stopped_elsewhere(status: RenderStatus) -> Problem:
    return Problem(
        status=502, code="render_canceled", title="The render was stopped",
        detail=f"The video_service ended this render as {status.state} though nobody canceled the job here. "
        "Send the request again.",
    )
