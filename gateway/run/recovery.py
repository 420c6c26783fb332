"""What a gateway process does beside serving: it signs that it lives, takes over from the dead, forgets no job."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread
from anyio.to_thread import run_sync as off_loop

from gateway.jobs.job import JobNotFound
from gateway.jobs.ledger import Ledger
from gateway.jobs.queue import JobQueue
from gateway.run.engine import DbosEngine, Dispatcher
from gateway.run.executors import Executors, StateInUse
from gateway.run.failures import crashed_too_often_problem, forgotten
from gateway.run.settle import Settling
from gateway.storage.sweep import Sweeper

log = logging.getLogger(__name__)

_SIGNS_WHILE_ALIVE = 4  # signatures within the time after which silence is death: some may be late
_REVIEW_EVERY_S = 30.0
_REVIEWED_AT_ONCE = 500
_SWEEP_EVERY_S = 600.0
_TIDY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """The parts that this needs."""

    engine: DbosEngine
    dispatcher: Dispatcher
    queue: JobQueue
    executors: Executors
    ledger: Ledger
    settling: Settling
    unfinished: Callable[[Collection[str]], set[str]]
    sweeper: Sweeper
    dead_after_s: float


@asynccontextmanager
async def recovering(care: Recovery) -> AsyncIterator[None]:
    """Become an executor and run jobs; at the end hand over what is unfinished.

    Raises:
        StateInUse: another process is this executor.
    """
    await off_loop(care.executors.enter, care.executors.patience_s)
    tasks: list[asyncio.Task[None]] = []
    try:
        try:
            await sweep(care, starting=True)
        except Exception:  # a bucket that does not answer makes the gateway unready, which says more than no start
            log.exception("left files could not be looked for; it is tried again in %g s", _SWEEP_EVERY_S)
        await care.engine.launch()
        await review(care)
        tasks += [
            asyncio.create_task(_keep_signing(care)),
            asyncio.create_task(care.dispatcher.keep_dispatching()),
            asyncio.create_task(_every(_REVIEW_EVERY_S, partial(review, care))),
            asyncio.create_task(
                _every(min(_REVIEW_EVERY_S, care.settling.deadline_s / 4), care.settling.fail_overdue)
            ),
            asyncio.create_task(_every(_SWEEP_EVERY_S, partial(sweep, care))),
            asyncio.create_task(_every(_TIDY_EVERY_S, partial(tidy, care))),
        ]
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await care.engine.shutdown()
        with suppress(Exception):  # a database that is gone needs no farewell
            await off_loop(care.executors.leave)


async def review(care: Recovery) -> None:
    """Bring the line and the engine together: nothing that was taken is forgotten, nothing hangs."""
    in_hand = await off_loop(care.queue.in_hand)
    for first in range(0, len(in_hand), _REVIEWED_AT_ONCE):
        found = await care.engine.review(in_hand[first:first + _REVIEWED_AT_ONCE])
        for claim in found.unknown:
            with suppress(JobNotFound):
                await care.ledger.get(claim.job_id)  # ended and removed meanwhile: nothing to start
                await care.engine.start(claim)
        for claim in found.adrift:
            log.warning("job %s was let go of by this process; it is carried on", claim.job_id)
            await care.engine.resume(claim)
        for claim in found.crashed_too_often:
            log.error("the engine gave job %s up: its process ended too often", claim.job_id)
            await care.settling.settle(claim.job_id, claim.number, crashed_too_often_problem())
        for claim in found.given_up:  # its memory could not be written, or was taken from it: no fault of the job
            log.error("the engine gave job %s up; it is begun again", claim.job_id)
            await care.settling.settle(claim.job_id, claim.number, forgotten())


async def sweep(care: Recovery, *, starting: bool = False) -> None:
    """Look after the files that killed processes left; where others live, only what is too old to become a job's."""
    await off_loop(partial(care.sweeper.run, nobody_writes=care.executors.alone if starting else lambda: False))


async def tidy(care: Recovery) -> None:
    """Have the engine forget the jobs that have ended, and the attempts at their webhooks: else it grows for ever."""
    skipped = 0
    while finished := await care.engine.finished(_REVIEWED_AT_ONCE, skipped):
        at_work = await off_loop(care.unfinished, finished.values())  # `review` is to find these
        ended = [workflow_id for workflow_id, job_id in finished.items() if job_id not in at_work]
        await care.engine.forget(ended)
        skipped += len(finished) - len(ended)


async def _keep_signing(care: Recovery) -> None:
    # A thread of its own: however many requests wait for one, this process lives.
    in_thread = partial(to_thread.run_sync, limiter=CapacityLimiter(1))
    while True:
        try:
            if not await in_thread(care.executors.sign):
                log.warning("this executor was silent for too long: others have carried on what it was at")
                care.engine.drop_running()
            taken = await in_thread(care.executors.take_over, care.engine.stranded, care.engine.carry_on)
            if taken:
                log.warning("carrying on the jobs of executors that are gone: %s", ", ".join(sorted(taken)))
        except StateInUse:
            log.critical("another process has taken this executor's id; this one ends", exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        except Exception:
            log.exception("this executor could not sign that it lives; it tries again")
        await asyncio.sleep(care.dead_after_s / _SIGNS_WHILE_ALIVE)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            log.exception("looking after jobs and files failed; it is tried again in %g s", seconds)
