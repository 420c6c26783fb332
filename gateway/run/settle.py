"""What becomes of a job that something went wrong with: it fails, or is released to the queue and goes on later."""

import asyncio
import logging
import time
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from contracts.errors import Problem
from gateway.jobs.job import ClaimLost, IllegalTransition, JobNotFound, JobRecord
from gateway.jobs.ledger import Ledger
from gateway.run.failures import Passing, absence_problem, database_is_away, overdue_problem
from gateway.services.video import Renderers

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
"""How often what may be the job's own fault may happen to it."""
_LONGEST_PAUSES = 20
_AWAY_FOR_CERTAIN_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Writes down verdicts. A released job pauses for `pause_s`, twice as long each time up to 20 times that; one that
    was begun more than `deadline_s` ago fails with what it waits for."""

    ledger: Ledger
    video: Renderers
    pause_s: float
    deadline_s: float

    async def settle(self, job_id: str, claim: int, verdict: Passing | Problem) -> None:
        """Fail or release the job of this claim; while the database is away, that waits."""
        pauses = 0
        while True:
            try:
                await self._write(job_id, claim, verdict)
                return
            except (ClaimLost, IllegalTransition, JobNotFound):
                return  # it was released, canceled or removed before
            except Exception as error:
                if not database_is_away(error):
                    raise
                log.warning("job %s waits for the database: %s", job_id, error, extra={"job_id": job_id})
            await asyncio.sleep(self._pause_s(pauses))
            pauses += 1

    async def fail_overdue(self) -> None:
        """Fail the waiting jobs whose time is over while what they need is away."""
        now = time.time()
        for job in await self.ledger.overdue(now - self.deadline_s):
            absence = self.ledger.absence(job)
            # One that was never begun may have stood in a long line: that alone, and a short absence, end no job.
            long_away_s = 0.0 if job.started_at is not None else min(self.deadline_s, _AWAY_FOR_CERTAIN_S)
            if absence is not None and absence.away_s >= long_away_s:
                problem = absence_problem(absence.what, absence.detail)
                await self.settle(job.id, job.claim, overdue_problem(problem, now - _began(job)))

    async def _write(self, job_id: str, claim: int, verdict: Passing | Problem) -> None:
        if isinstance(verdict, Problem):
            await self._fail(job_id, claim, verdict)
            return
        job = await self.ledger.claimed(job_id, claim)
        waited_s = time.time() - _began(job)
        if waited_s > self.deadline_s:
            await self._fail(job_id, claim, overdue_problem(verdict.problem, waited_s))
        elif verdict.counts and job.render_attempt + 1 >= MAX_ATTEMPTS:
            await self._fail(job_id, claim, verdict.problem)
        else:
            await self._release(job, verdict)

    async def _release(self, job: JobRecord, verdict: Passing) -> None:
        warning = None
        if verdict.counts:
            warning = f"Begun again: {verdict.detail}"
            await self.video.leave(job.id, job.parameters.model)
        await self.ledger.release(
            job.id, job.claim, verdict.what, verdict.detail, warning=warning,
            render_attempt=job.render_attempt + verdict.counts,
            pause_s=max(self._pause_s(job.claim), min(verdict.retry_after_s, self.pause_s * _LONGEST_PAUSES)),
        )
        log.info(
            "job %s waits for the %s: %s", job.id, verdict.what, verdict.detail,
            extra={"job_id": job.id, "code": verdict.problem.code},
        )

    async def _fail(self, job_id: str, claim: int, problem: Problem) -> None:
        await self.ledger.move(job_id, "failed", error=problem.model_copy(update={"job_id": job_id}), claim=claim)
        log.warning("job %s failed: %s", job_id, problem.detail, extra={"job_id": job_id, "code": problem.code})

    def _pause_s(self, before: int) -> float:
        return self.pause_s * min(2 ** min(before, 10), _LONGEST_PAUSES)


def _began(job: JobRecord) -> float:
    return job.created_at if job.started_at is None else job.started_at


async def was_canceled(job_id: str, ledger: Ledger) -> bool:
    """Whether its work is not wanted any more, as far as that can be known."""
    try:
        return (await ledger.get(job_id)).state == "canceled"
    except JobNotFound:
        return True
    except SQLAlchemyError:
        return False  # nobody knows; a render that nobody waits for is removed later
