"""The jobs table from the event loop: every call runs in a thread, every change wakes who waits for the job."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from contracts.errors import Problem
from contracts.jobs import Awaited, EffectiveParameters, JobStage, JobState, VideoFile
from gateway.auth.links import Links
from gateway.jobs.deliveries import Delivery
from gateway.jobs.eta import Eta, Waiting
from gateway.jobs.job import Absence, JobRecord, NewJob, StoredPicture
from gateway.jobs.progress import LiveProgress
from gateway.jobs.store import JobStore
from gateway.threads import off_loop


class Ledger:
    """What `JobStore` does, without blocking the loop; raises what it raises."""

    def __init__(
        self, store: JobStore, live: LiveProgress, eta: Eta, ended: Callable[[JobRecord], None],
        links: Links | None = None, absent: Callable[[JobRecord], Absence | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._outlook = eta
        self._looking = asyncio.Lock()
        self.live = live
        self.links = links  # where jobs are shown with links to their videos
        self._absent = absent  # what a waiting job needs and no address offers now
        self._ended = ended  # told of every job that this process brings to its end

    async def add(self, job: NewJob, max_queued: int, max_of_owner: int | None = None) -> JobRecord:
        """Store a new job."""
        stored = await off_loop(self._store.add, job, max_queued, max_of_owner)
        self._outlook.moved()
        self.live.turn_due.set()
        return stored

    async def get(self, job_id: str) -> JobRecord:
        """The job, or `JobNotFound`."""
        return await off_loop(self._store.get, job_id)

    async def made_before(self, owner: str, idempotency_key: str, fingerprint: str) -> JobRecord | None:
        """The job that this request made before; raises `KeyReused`."""
        return await off_loop(self._store.made_before, owner, idempotency_key, fingerprint)

    async def page(
        self, limit: int, beyond: int | None, *, owner: str, state: JobState | None = None, oldest_first: bool = False
    ) -> list[JobRecord]:
        """Jobs of `owner`, newest first unless asked otherwise."""
        return await off_loop(self._store.page, limit, beyond, owner=owner, state=state, oldest_first=oldest_first)

    async def expire(self, finished_before: float, limit: int, *, completed: bool) -> list[str]:
        """Let go of jobs that ended before; returns the ids of those whose files are to be removed."""
        job_ids = await off_loop(self._store.expire, finished_before, limit, completed=completed)
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

    async def webhook(self, job: JobRecord) -> Delivery | None:
        """The webhook of the job, if it has one."""
        return None if job.request.webhook_url is None else await off_loop(self._store.webhook, job.id)

    async def waiting(self, jobs: Sequence[JobRecord]) -> Mapping[str, Waiting]:
        """The places of those that are queued, by job id, and when each should be done."""
        queued = [job for job in jobs if job.state == "queued"]
        if queued:
            async with self._looking:  # one look answers all who ask meanwhile
                if not self._outlook.fresh:
                    await off_loop(self._outlook.look)
        return {job.id: self._outlook.of(job) for job in queued}

    def absence(self, job: JobRecord) -> Absence | None:
        """What keeps a waiting job from being begun, beside those before it."""
        if job.state != "queued":
            return None
        absent = self._absent(job)
        if absent is None and job.waiting_for is not None and time.time() < (job.waiting_until or 0.0):
            return Absence(what=job.waiting_for, detail=job.waiting_detail or "")
        return absent

    def waits(self, job: JobRecord) -> bool:
        """Whether a job that was queued surely still is, as of the last look at the line."""
        return job.state == "queued" and self._outlook.knows(job.id)

    async def move(
        self, job_id: str, to: JobState, *, stage: JobStage | None = None, video: VideoFile | None = None,
        error: Problem | None = None, timings: Mapping[str, float] | None = None,
        thumbnail: StoredPicture | None = None, spritesheet: StoredPicture | None = None, claim: int | None = None,
    ) -> JobRecord:
        """Bring the job into another state."""
        job = await off_loop(
            self._store.move, job_id, to, stage=stage, video=video, error=error, timings=timings, thumbnail=thumbnail,
            spritesheet=spritesheet, claim=claim,
        )
        self._moved(job_id)
        if job.finished:
            self._outlook.ended(job)
            self._ended(job)
            if job.request.webhook_url is not None:
                self.live.webhook_due.set()
        return job

    async def note(
        self, job_id: str, *, stage: JobStage | None = None, timings: Mapping[str, float] | None = None,
        warning: str | None = None, parameters: EffectiveParameters | None = None, actual_prompt: str | None = None,
        caption: str | None = None, render_attempt: int | None = None, claim: int | None = None,
    ) -> JobRecord:
        """Write down what became known of a running job."""
        job = await off_loop(
            self._store.note, job_id, stage=stage, timings=timings, warning=warning, parameters=parameters,
            actual_prompt=actual_prompt, caption=caption, render_attempt=render_attempt, claim=claim,
        )
        if stage is not None:
            self.live.forget(job_id)  # what the stage before reported
        self.live.changed(job_id)
        return job

    async def release(
        self, job_id: str, claim: int, waiting_for: Awaited, detail: str, *, pause_s: float,
        render_attempt: int | None = None, warning: str | None = None,
    ) -> JobRecord:
        """Give a claimed job back to the queue, where it keeps its place."""
        job = await off_loop(
            self._store.release, job_id, claim, waiting_for, detail, pause_s=pause_s, render_attempt=render_attempt,
            warning=warning,
        )
        self._moved(job_id)
        return job

    async def overdue(self, begun_before: float) -> list[JobRecord]:
        """Waiting jobs that were first begun before then, or, never begun, came before."""
        return await off_loop(self._store.overdue, begun_before)

    async def remove(self, *job_ids: str) -> None:
        """Forget the jobs."""
        await off_loop(self._store.remove, *job_ids)
        self._moved(*job_ids)

    async def check_writable(self) -> None:
        """Raise where a write would fail."""
        await off_loop(self._store.check_writable)

    def _moved(self, *job_ids: str) -> None:
        for job_id in job_ids:
            self.live.forget(job_id)
        self._outlook.moved()
        self.live.queue_moved()
