"""How a job ends by its owner's hand: canceled where it is, or removed when it has ended."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from anyio.to_thread import run_sync as off_loop
from sqlalchemy.exc import SQLAlchemyError

from gateway.jobs.job import IllegalTransition, JobRecord
from gateway.jobs.ledger import Ledger
from gateway.jobs.queue import Claim
from gateway.run.engine import DbosEngine
from gateway.services.video import Renderers
from gateway.storage.files import LocalFiles
from gateway.storage.room import Reserve, is_full

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Cancels and removes jobs, everywhere where something of them is; on a full disk with what is kept for that."""

    ledger: Ledger
    files: LocalFiles
    engine: DbosEngine
    video: Renderers
    reserve: Reserve

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a queued or running job; canceling a canceled one changes nothing.

        Raises:
            JobNotFound: there is no such job.
            IllegalTransition: it has completed or failed.
        """
        return await self._with_room(partial(self._cancel, job_id))

    async def remove(self, job_id: str) -> None:
        """Forget an ended job and remove its files.

        Raises:
            JobNotFound: there is no such job.
            IllegalTransition: it has not ended; cancel it first.
        """
        await self._with_room(partial(self._remove, job_id))

    async def _cancel(self, job_id: str) -> JobRecord:
        before = await self.ledger.get(job_id)
        if before.state == "canceled":
            return before
        try:
            job = await self.ledger.move(job_id, "canceled")
        except IllegalTransition as error:
            if error.present != "canceled":
                raise
            return await self.ledger.get(job_id)  # asked for twice at once: the other one does the rest
        try:
            await self.engine.cancel(Claim(job_id=job_id, number=job.claim))
        except SQLAlchemyError as error:  # it is canceled all the same: its work ends at its next part
            log.warning("the engine was not told that %s is canceled: %s", job_id, error, extra={"job_id": job_id})
        if before.started_at is not None:  # released, it may have left a render
            await self.video.stop(job_id)  # the job's own task tries, too
        return job

    async def _remove(self, job_id: str) -> None:
        job = await self.ledger.get(job_id)
        if not job.finished:
            raise IllegalTransition(job_id, job.state, "removed")
        # In this order a crash leaves no files that nobody knows: an expired job's are swept, and it is removed again.
        await self.ledger.let_go(job_id)
        await off_loop(self.files.remove_job, job_id)
        await self.ledger.remove(job_id)

    async def _with_room(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except (SQLAlchemyError, OSError) as error:
            if not is_full(error) or not await off_loop(self.reserve.give_up):
                raise
            log.warning("the disk is full: what was kept for removals is given up")
        return await work()
