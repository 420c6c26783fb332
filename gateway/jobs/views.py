"""A stored job as its owner sees it."""

from collections.abc import Mapping
from datetime import UTC, datetime

from contracts.jobs import Job, JobPage, JobProgress, JobUrls, WebhookAttempt, WebhookDelivery
from gateway.auth.links import Links
from gateway.edge.middleware import current_prefix
from gateway.jobs.deliveries import Delivery
from gateway.jobs.eta import Waiting
from gateway.jobs.job import Absence, JobRecord
from gateway.jobs.ledger import Ledger

# Where each stage begins on the way from 0 to 1; rendering takes nearly all of the time.
_DESCRIBING, _RENDERING, _SAVING = 0.01, 0.05, 0.97


async def view(job: JobRecord, ledger: Ledger) -> Job:
    """The job with its place in the queue, or its live progress, and what became of its webhook."""
    shown = _glance(job, await ledger.waiting([job]), ledger)
    delivery = await ledger.webhook(job)
    return shown if delivery is None else shown.model_copy(update={"webhook": _webhook(delivery)})


async def view_page(jobs: list[JobRecord], limit: int, ledger: Ledger) -> JobPage:
    """A page of jobs; a full page names where the next one begins."""
    following = str(jobs[-1].sequence) if len(jobs) == limit else None
    waiting = await ledger.waiting(jobs)
    return JobPage(data=[_glance(job, waiting, ledger) for job in jobs], next_cursor=following)


def present(
    job: JobRecord, live: JobProgress | None, waiting: Waiting | None, absence: Absence | None = None
) -> Job:
    """The wire form of a stored job."""
    base = f"{current_prefix()}/v1/jobs/{job.id}"
    return Job(
        id=job.id, state=job.state, created_at=_time(job.created_at),
        started_at=None if job.started_at is None else _time(job.started_at),
        finished_at=None if job.finished_at is None else _time(job.finished_at),
        expired_at=None if job.expired_at is None else _time(job.expired_at),
        progress=_progress(job, live, waiting, absence), original_prompt=job.request.prompt,
        actual_prompt=job.actual_prompt, caption=job.caption, priority=job.priority, parameters=job.parameters,
        warnings=list(job.warnings), timings=dict(job.timings), video=job.video, error=job.error,
        metadata=job.request.metadata,
        urls=JobUrls(
            self=base, events=f"{base}/events", cancel=f"{base}/cancel",
            content=f"{base}/content" if job.state == "completed" else None,
        ),
    )


def linked(job: Job, links: Links | None) -> Job:
    """The job with a link to its video, if there is one and links are made."""
    if links is None or job.urls.content is None:
        return job
    link = current_prefix() + links.to_video(job.id)
    return job.model_copy(update={"urls": job.urls.model_copy(update={"link": link})})


def _glance(job: JobRecord, waiting: Mapping[str, Waiting], ledger: Ledger) -> Job:
    shown = present(job, ledger.live.progress(job.id), waiting.get(job.id), ledger.absence(job))
    return linked(shown, ledger.links)


def _webhook(delivery: Delivery) -> WebhookDelivery:
    return WebhookDelivery(
        url=delivery.url, state=delivery.state,
        attempts=[
            WebhookAttempt(at=_time(attempt.at), seconds=attempt.seconds, status=attempt.status, error=attempt.error)
            for attempt in delivery.attempts
        ],
        next_try_at=None if delivery.next_try_at is None else _time(delivery.next_try_at),
    )


def _progress(
    job: JobRecord, live: JobProgress | None, waiting: Waiting | None, absence: Absence | None
) -> JobProgress:
    steps = job.parameters.steps or 0
    if job.state in ("completed", "expired"):
        return JobProgress(step=steps, num_steps=steps, fraction=1.0, eta_s=0.0)
    if job.state == "queued":
        position = None if waiting is None else waiting.position
        if absence is not None:  # nobody knows for how long
            return JobProgress(
                queue_position=position, waiting_for=absence.what, waiting_detail=absence.detail
            )
        return JobProgress(queue_position=position, eta_s=None if waiting is None else waiting.eta_s)
    if job.state != "running":
        return JobProgress()
    if job.stage == "rendering":
        reported = live or JobProgress(stage="rendering", num_steps=steps)
        fraction = round(_RENDERING + (_SAVING - _RENDERING) * reported.fraction, 4)
        return reported.model_copy(update={"fraction": fraction, "num_steps": reported.num_steps or steps})
    if job.stage == "saving":
        return JobProgress(stage="saving", step=steps, num_steps=steps, fraction=_SAVING)
    return JobProgress(stage=job.stage, num_steps=steps, fraction=_DESCRIBING)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
