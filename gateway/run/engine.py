"""The durable engine: jobs leave the line as slots are free, and are carried to their ends over any number of crashes.

`DbosEngine` keeps tables of its own: a SQLite file (WAL) beside the jobs' one, or a schema of the same Postgres. They
remember which parts of a claimed job are done; the jobs table says what the job is. Each claim of a job is a workflow
of its own: one that ended with a release stays ended. Only this module and `dbos_setup` know DBOS.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync as off_loop
from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from gateway.database.database import normal_url
from gateway.jobs.progress import LiveProgress
from gateway.jobs.queue import Claim, Claimable, JobQueue
from gateway.run import dbos_setup
from gateway.run.pipeline import Answer, Step
from gateway.services.pool import Pool
from gateway.settings import MAX_CONCURRENCY

log = logging.getLogger(__name__)

WEBHOOK_QUEUE = "webhooks"
_WAITS_OR_RUNS = ("ENQUEUED", "PENDING", "DELAYED")
_CRASHED_TOO_OFTEN = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
_OVER = ("SUCCESS", "ERROR", "CANCELLED", _CRASHED_TOO_OFTEN)

_DELIVERIES_AT_ONCE = 16  # a receiver that does not answer keeps one of them busy until its deadline

RunJob = Callable[[str, int, Step], Awaitable[None]]
Deliver = Callable[[str, int], Awaitable[float | None]]
"""Makes attempt n at a job's webhook; returns the seconds until the next one, or `None` when it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What the engine knows of jobs that were taken from the line and have not ended: it should have all of them."""

    unknown: tuple[Claim, ...]
    adrift: tuple[Claim, ...]
    """This process holds them and was not at them in two reviews: it had let go of them, and nobody took them up."""
    given_up: tuple[Claim, ...]
    crashed_too_often: tuple[Claim, ...]


class DbosEngine:
    """Runs `run_job(job_id, claim, step)` for every started job, at most `concurrency` at once, and `deliver(job_id,
    n)` for every webhook until it is over, apart from the jobs. `freed` is called when a job has left here.

    One per process. Jobs run on the event loop that called `launch`.
    """

    def __init__(
        self, database_url: str, run_job: RunJob, deliver: Deliver, freed: Callable[[], None], *, executor_id: str,
        concurrency: int, poll_s: float, max_recoveries: int,
    ) -> None:
        self._url = normal_url(database_url)
        self._run_job = run_job
        self._deliver = deliver
        self._freed = freed
        self._executor_id = executor_id
        self._poll_s = poll_s
        self._max_recoveries = max_recoveries
        self._running: dict[str, asyncio.Task[None]] = {}
        self._jobs: set[str] = set()  # started here and not ended, or about to be
        self._adrift: set[str] = set()
        self._slots = CapacityLimiter(concurrency)
        self._workflow: Callable[[str, int], Coroutine[Any, Any, None]] | None = None
        self._delivery: Callable[[str, int], Coroutine[Any, Any, None]] | None = None

    async def launch(self) -> None:
        """Take up what a former process with this executor id left, and begin to run jobs.

        No other process may have the id: both would run the same jobs.
        """
        queues = {WEBHOOK_QUEUE: _DELIVERIES_AT_ONCE}
        await off_loop(dbos_setup.prepare, self._url, queues, self._poll_s)
        DBOS(config=dbos_setup.config(self._url, self._executor_id))
        dbos_setup.log_as_everything_else()

        # DBOS marks the function itself, which a bound method does not allow. Builds before claims name none.
        async def carry(job_id: str, number: int = 0) -> None:
            await self._carry(Claim(job_id=job_id, number=number))

        self._workflow = DBOS.workflow(name="run_job", max_recovery_attempts=self._max_recoveries)(carry)

        async def deliver(job_id: str, attempt: int) -> None:
            await self._attempt(job_id, attempt)

        self._delivery = DBOS.workflow(name="deliver", max_recovery_attempts=self._max_recoveries)(deliver)
        DBOS.launch()  # on the loop, which it adopts for the jobs; a tenth of a second, before anything is served

    @property
    def num_free(self) -> int:
        """How many more jobs this process would run now."""
        return max(0, int(self._slots.total_tokens) - len(self._jobs))

    def resize(self, concurrency: int) -> None:
        """Run so many jobs at once from now on; what runs beyond them goes on."""
        self._slots.total_tokens = concurrency

    async def start(self, claim: Claim) -> None:
        """Run the job, here and now. Starting a claim again that was started anywhere changes nothing."""
        assert self._workflow is not None, "start before launch"
        workflow_id = _workflow_id(claim)
        self._jobs.add(workflow_id)
        try:
            if claim.number > 0:  # the claim before is over: a job released a thousand times leaves no thousand records
                await DBOS.delete_workflow_async(_workflow_id(Claim(job_id=claim.job_id, number=claim.number - 1)))
            with SetWorkflowID(workflow_id):
                await DBOS.start_workflow_async(self._workflow, claim.job_id, claim.number)
            await asyncio.sleep(0)  # its task, if it was not started before, has begun after this
        finally:
            if workflow_id not in self._running:
                self._jobs.discard(workflow_id)

    async def deliver(self, job_id: str, attempt: int = 1, delay_s: float = 0.0) -> None:
        """Have an attempt at the job's webhook made after `delay_s`. Submitting it again changes nothing."""
        assert self._delivery is not None, "deliver before launch"
        with (
            SetWorkflowID(f"{job_id}.webhook.{attempt}"),
            # A priority is set because without one an attempt would go before all that have one.
            SetEnqueueOptions(priority=attempt, delay_seconds=delay_s or None),
        ):
            await DBOS.enqueue_workflow_async(WEBHOOK_QUEUE, self._delivery, job_id, attempt)

    async def cancel(self, claim: Claim) -> None:
        """Keep the job from starting, or stop it where it is."""
        workflow_id = _workflow_id(claim)
        await DBOS.cancel_workflow_async(workflow_id)
        if task := self._running.get(workflow_id):
            task.cancel()

    async def finished(self, limit: int, skipped: int) -> dict[str, str]:
        """Up to `limit` workflows that have ended, however, after the `skipped` oldest: the job of each by its id."""
        found = await DBOS.list_workflows_async(
            status=list(_OVER), limit=limit, offset=skipped, load_input=False, load_output=False
        )
        return {workflow.workflow_id: workflow.workflow_id.split(".")[0] for workflow in found}

    async def forget(self, workflow_ids: Sequence[str]) -> None:
        """Drop what is remembered of these, all of which `finished` named."""
        await DBOS.delete_workflows_async(list(workflow_ids))

    async def review(self, claims: Sequence[Claim]) -> Review:
        """Look for jobs among these, none of which has ended, that the engine does not carry on."""
        claim_of = {_workflow_id(claim): claim for claim in claims}
        found = await DBOS.list_workflows_async(workflow_ids=list(claim_of), load_input=False, load_output=False)
        status = {workflow.workflow_id: workflow.status for workflow in found}
        idle = [workflow_id for workflow_id, state in status.items() if state not in _WAITS_OR_RUNS]
        held = {
            workflow.workflow_id for workflow in found
            if workflow.status == "PENDING" and workflow.executor_id == self._executor_id
        } - self._running.keys()
        adrift = held & self._adrift
        self._adrift = self._adrift.difference(claim_of) | held
        return Review(
            unknown=tuple(claim for workflow_id, claim in claim_of.items() if workflow_id not in status),
            adrift=tuple(claim_of[workflow_id] for workflow_id in adrift),
            given_up=tuple(claim_of[one] for one in idle if status[one] != _CRASHED_TOO_OFTEN),
            crashed_too_often=tuple(claim_of[one] for one in idle if status[one] == _CRASHED_TOO_OFTEN),
        )

    async def resume(self, claim: Claim) -> None:
        """Have a job that nobody is at carried on; whoever still is at it, after all, writes nothing any more."""
        await DBOS.resume_workflow_async(_workflow_id(claim))

    def stranded(self, living: set[str]) -> set[str]:
        """The executors that hold jobs and are not among the living. Blocking."""
        at_work = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        return {workflow.executor_id for workflow in at_work if workflow.executor_id} - living

    def carry_on(self, dead: set[str]) -> None:
        """Have the jobs that these executors were at run on living ones, before those that wait. Blocking."""
        # What DBOS offers to its own, paid, supervisor; it takes only jobs that still are in the dead one's hands.
        DBOS._recover_pending_workflows(sorted(dead))

    def drop_running(self) -> None:
        """Let go of every job at work, without ending it: another executor has it now."""
        for task in self._running.values():
            task.cancel()

    async def shutdown(self) -> None:
        """Stop at once. Jobs at work stay unfinished and go on at the next launch, or with another executor."""
        tasks = list(self._running.values())
        self.drop_running()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await off_loop(lambda: DBOS.destroy(destroy_registry=True))
        # DBOS had made its own pool the loop's, and has shut it: whoever uses the loop next needs one that works.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    async def _carry(self, claim: Claim) -> None:
        workflow_id = _workflow_id(claim)
        self._jobs.add(workflow_id)
        try:
            with self._at_work(workflow_id):
                async with self._slots:  # jobs that a dead executor left come all at once
                    await self._run_job(claim.job_id, claim.number, _step)
        finally:
            if workflow_id not in self._running:
                self._jobs.discard(workflow_id)
                self._freed()

    @contextmanager
    def _at_work(self, workflow_id: str) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._running[workflow_id] = task
        try:
            yield
        finally:
            if self._running.get(workflow_id) is task:  # not the next try at a job that was taken from this one
                del self._running[workflow_id]

    async def _attempt(self, job_id: str, attempt: int) -> None:
        with self._at_work(f"{job_id}.webhook.{attempt}"):
            # The step's answer is kept: what follows runs again after a crash, the call to the receiver does not.
            answer = await _step("call", partial(self._call, job_id, attempt))
            if answer["wait_s"] is not None:
                await self.deliver(job_id, attempt + 1, answer["wait_s"])

    async def _call(self, job_id: str, attempt: int) -> Answer:
        return {"wait_s": await self._deliver(job_id, attempt)}


def _workflow_id(claim: Claim) -> str:
    return claim.job_id if claim.number == 0 else f"{claim.job_id}.{claim.number}"


async def _step(name: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
    async def run() -> Answer:
        return await work()

    # preemptible: a job canceled by another process on the same database stops here within a second.
    return await DBOS.run_step_async({"name": name, "preemptible": True}, run)


def jobs_at_once(given: int | None, renderers: Pool[Any]) -> int:
    """How many jobs this process carries on at once: as many as the settings say, or two for each video service."""
    return given or min(2 * len(renderers.members), MAX_CONCURRENCY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Takes jobs for this executor's engine: at once when one comes or ends here, and every `look_again_s`, for other
    processes on the same database tell nobody here."""

    queue: JobQueue
    live: LiveProgress
    engine: DbosEngine
    executor_id: str
    look_again_s: float
    claimable: Callable[[], Claimable]
    concurrency: Callable[[], int]
    _seen: list[Claimable] = field(default_factory=list, init=False)

    async def keep_dispatching(self) -> None:
        """Dispatch until canceled."""
        while True:
            self.live.turn_due.clear()
            try:
                await self._dispatch()
            except Exception:
                log.exception("no job could be started; it is tried again in %g s", self.look_again_s)
            try:
                async with asyncio.timeout(self.look_again_s):
                    await self.live.turn_due.wait()
            except TimeoutError:
                continue

    async def _dispatch(self) -> None:
        claimable = self.claimable()
        if self._seen != [claimable]:
            self._seen[:] = [claimable]
            self.live.queue_moved()  # waiting jobs say what they wait for
        self.engine.resize(self.concurrency())
        if self.engine.num_free == 0:
            return
        for claim in await off_loop(self.queue.take, self.executor_id, self.engine.num_free, claimable):
            try:
                await self.engine.start(claim)
            except Exception:
                log.exception("job %s was not started; it waits again", claim.job_id, extra={"job_id": claim.job_id})
                await off_loop(self.queue.hand_back, claim.job_id)
