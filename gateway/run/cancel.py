"""How a job ends by its owner's hand: canceled where it is, or removed when it has ended."""

from dataclasses import dataclass

from gateway.jobs.job import IllegalTransition, JobRecord
from gateway.jobs.ledger import Ledger
from gateway.run.engine import DbosEngine
from gateway.services.video import Renderers
from gateway.storage.files import LocalFiles
from gateway.threads import off_loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Cancels and removes jobs, everywhere where something of them is."""

    ledger: Ledger
    files: LocalFiles
    engine: DbosEngine
    video: Renderers

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a queued or running job; canceling a canceled one changes nothing.

        Raises:
            JobNotFound: there is no such job.
            IllegalTransition: it has completed or failed.
        """
        before = await self.ledger.get(job_id)
        if before.state == "canceled":
            return before
        job = await self.ledger.move(job_id, "canceled")
        await self.engine.cancel(job_id)
        if before.state == "running":
            await self.video.stop(job_id)  # the job's own task tries, too
        return job

    async def remove(self, job_id: str) -> None:
        """Forget an ended job and remove its files.

        Raises:
            JobNotFound: there is no such job.
            IllegalTransition: it has not ended; cancel it first.
        """
        job = await self.ledger.get(job_id)
        if not job.finished:
            raise IllegalTransition(job_id, job.state, "removed")
        await self.ledger.remove(job_id)
        await off_loop(self.files.remove_job, job_id)
