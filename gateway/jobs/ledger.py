"""The jobs from the event loop: changed in threads, whereupon who waits for one is woken, and shown to their owners."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Unpack

from anyio.to_thread import run_sync as off_loop

from contracts.jobs import Awaited, Job, JobPage, JobProgress, JobState, JobUrls, WebhookAttempt, WebhookDelivery
from gateway.auth.links import Links
from gateway.edge.middleware import current_prefix
from gateway.jobs.deliveries import Delivery
from gateway.jobs.job import Absence, ClaimLost, Ending, IllegalTransition, JobRecord, Known, NewJob
from gateway.jobs.progress import Eta, LiveProgress, Waiting
from gateway.jobs.store import JobStore

# Where each stage begins on the way from 0 to 1; rendering takes nearly all of the time.
_DESCRIBING, _RENDERING, _SAVING = 0.01, 0.05, 0.97
_LOOK_AGAIN_S = 5.0  # a change made by another process wakes nobody here


class Ledger:
    """What `JobStore` does, without blocking the loop, raising what it raises; and what is known of jobs beside it."""

    def __init__(
        self, store: JobStore, live: LiveProgress, eta: Eta, ended: Callable[[JobRecord], None],
        links: Links | None = None, absent: Callable[[JobRecord], Absence | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._eta = eta
        self._looking = asyncio.Lock()
        self.live = live
        self.links = links  # where jobs are shown with links to their videos
        self._absent = absent  # what a waiting job needs and no address offers now
        self._ended = ended  # told of every job that this process brings to its end

    async def add(self, job: NewJob, max_queued: int, max_of_owner: int | None = None) -> JobRecord:
        """Store a new job."""
        stored = await off_loop(self._store.add, job, max_queued, max_of_owner)
        self._eta.moved()
        self.live.turn_due.set()
        return stored

    async def get(self, job_id: str) -> JobRecord:
        """The job, or `JobNotFound`."""
        return await off_loop(self._store.get, job_id)

    async def claimed(self, job_id: str, claim: int) -> JobRecord:
        """The job as this claim may go on with it.

        Raises:
            ClaimLost, IllegalTransition, JobNotFound: it may not: it was released, or has ended.
        """
        job = await self.get(job_id)
        if job.claim != claim:
            raise ClaimLost(job_id, claim)
        if job.finished:
            raise IllegalTransition(job_id, job.state, "running")
        return job

    async def made_before(self, owner: str, idempotency_key: str, fingerprint: str) -> JobRecord | None:
        """The job that this request made before; raises `KeyReused`."""
        return await off_loop(self._store.made_before, owner, idempotency_key, fingerprint)

    async def page(
        self, limit: int, beyond: int | None, *, owner: str, state: JobState | None = None, oldest_first: bool = False
    ) -> list[JobRecord]:
        """Jobs of `owner`, newest first unless asked otherwise."""
        return await off_loop(
            partial(self._store.page, limit, beyond, owner=owner, state=state, oldest_first=oldest_first))

    async def expire(self, finished_before: float, limit: int, *, completed: bool) -> list[str]:
        """Let go of jobs that ended before; returns the ids of those whose files are to be removed."""
        job_ids = await off_loop(partial(self._store.expire, finished_before, limit, completed=completed))
        for job_id in job_ids:
            self.live.changed(job_id)
        return job_ids

    async def outdated(self, finished_before: float, limit: int) -> list[str]:
        """Jobs without files that ended before, whose records may go."""
        return await off_loop(self._store.outdated, finished_before, limit)

    async def let_go(self, job_id: str) -> None:
        """Let go of the files of an ended job: a completed one is `expired`."""
        await off_loop(self._store.expire_one, job_id)
        self.live.changed(job_id)

    def waits(self, job: JobRecord) -> bool:
        """Whether a job that was queued surely still is, as of the last look at the line."""
        return job.state == "queued" and self._eta.knows(job.id)

    async def move(self, job_id: str, to: JobState, **told: Unpack[Ending]) -> JobRecord:
        """Bring the job into another state."""
        job = await off_loop(partial(self._store.move, job_id, to, **told))
        self._moved(job_id)
        if job.finished:
            self._eta.ended(job)
            self._ended(job)
            if job.request.webhook_url is not None:
                self.live.webhook_due.set()
        return job

    async def note(self, job_id: str, **known: Unpack[Known]) -> JobRecord:
        """Write down what became known of a running job."""
        job = await off_loop(partial(self._store.note, job_id, **known))
        if known.get("stage") is not None:
            self.live.forget(job_id)  # what the stage before reported
        self.live.changed(job_id)
        return job

    async def release(
        self, job_id: str, claim: int, waiting_for: Awaited, detail: str, *, pause_s: float,
        render_attempt: int | None = None, warning: str | None = None,
    ) -> JobRecord:
        """Give a claimed job back to the queue, where it keeps its place."""
        job = await off_loop(partial(
            self._store.release, job_id, claim, waiting_for, detail, pause_s=pause_s, render_attempt=render_attempt,
            warning=warning,
        ))
        self._moved(job_id)
        return job

    async def overdue(self, begun_before: float) -> list[JobRecord]:
        """Waiting jobs that were first begun before then, or, never begun, came before."""
        return await off_loop(self._store.overdue, begun_before)

    async def remove(self, *job_ids: str) -> None:
        """Forget the jobs."""
        await off_loop(self._store.remove, *job_ids)
        self._moved(*job_ids)

    async def shown(self, job: JobRecord) -> Job:
        """The job as its owner sees it: with its place in the queue or its progress, and what became of its webhook."""
        shown = self._shown(job, await self._waiting([job]))
        if job.request.webhook_url is None:
            return shown
        delivery = await off_loop(self._store.webhook, job.id)
        return shown if delivery is None else shown.model_copy(update={"webhook": _webhook(delivery)})

    async def shown_page(self, jobs: list[JobRecord], limit: int) -> JobPage:
        """A page of jobs; a full page names where the next one begins."""
        following = str(jobs[-1].sequence) if len(jobs) == limit else None
        waiting = await self._waiting(jobs)
        shown = [_without_preview(self._shown(job, waiting)) for job in jobs]
        return JobPage(data=shown, next_cursor=following)

    def absence(self, job: JobRecord) -> Absence | None:
        """What keeps a waiting job from being begun, beside those before it."""
        if job.state != "queued":
            return None
        absent = self._absent(job)
        if absent is None and job.waiting_for is not None and time.time() < (job.waiting_until or 0.0):
            return Absence(what=job.waiting_for, detail=job.waiting_detail or "")
        return absent

    async def ended(self, job_id: str, within_s: float) -> JobRecord:
        """The job once it has ended, or as it is after so many seconds; raises `JobNotFound`."""
        deadline = time.monotonic() + within_s
        with self.live.watch(job_id) as watcher:
            while True:
                watcher.up_to_date()
                job = await self.get(job_id)
                left = deadline - time.monotonic()
                if job.finished or left <= 0:
                    return job
                await watcher.wait(min(left, _LOOK_AGAIN_S))

    async def _waiting(self, jobs: Sequence[JobRecord]) -> Mapping[str, Waiting]:
        """The places of those that are queued, by job id, and when each should be done."""
        queued = [job for job in jobs if job.state == "queued"]
        if queued:
            async with self._looking:  # one look answers all who ask meanwhile
                if not self._eta.fresh:
                    await off_loop(self._eta.look)
        return {job.id: self._eta.of(job) for job in queued}

    def _shown(self, job: JobRecord, waiting: Mapping[str, Waiting]) -> Job:
        shown = present(job, self.live.progress(job.id), waiting.get(job.id), self.absence(job))
        return linked(shown, self.links)

    def _moved(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.live.forget(job_id)
        self._eta.moved()
        self.live.queue_moved()


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


def _without_preview(job: Job) -> Job:
    if job.progress.preview is None:
        return job
    return job.model_copy(update={"progress": job.progress.model_copy(update={"preview": None})})


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
