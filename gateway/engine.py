"""The durable engine: a job that was submitted is carried to its end, over any number of crashes.

`DbosEngine` keeps its own database (SQLite, WAL) beside the jobs table. It remembers which parts of a job are done; the
jobs table says what the job is. Nothing outside this module knows DBOS.
"""

import asyncio
import fcntl
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TextIO

from anyio import to_thread
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID

from gateway.jobs import JobRecord
from gateway.pipeline import Answer, Step

log = logging.getLogger(__name__)

APPLICATION = "stillmotion"
QUEUE = "jobs"
# Jobs in flight are taken up by any later build: it stays the same until `run_job` changes the order of its parts.
APPLICATION_VERSION = "1"
MAX_RECOVERY_ATTEMPTS = 20  # a job that was at work at so many crashes is taken to be their cause
_LOCK_WAIT_S = 5.0

RunJob = Callable[[str, Step], Awaitable[None]]


class StateInUse(Exception):
    """Another live process has this executor id on this data folder: both would run the same jobs."""


class DbosEngine:
    """Runs `run_job(job_id, step)` for every submitted job, at most `concurrency` at once, lower priority first.

    One per process. Jobs run on the event loop that called `launch`.
    """

    def __init__(
        self, state_dir: Path, run_job: RunJob, *, executor_id: str, concurrency: int, poll_s: float
    ) -> None:
        self._state_dir = state_dir
        self._run_job = run_job
        self._executor_id = executor_id
        self._concurrency = concurrency
        self._poll_s = poll_s
        self._running: dict[str, asyncio.Task[None]] = {}
        self._lock: TextIO | None = None
        self._workflow: Callable[[str], Coroutine[Any, Any, None]] | None = None

    async def hold(self) -> None:
        """Make sure that no other process runs these jobs, before anything is touched.

        Raises:
            StateInUse: another process with this executor id is alive.
        """
        self._lock = await to_thread.run_sync(_hold, self._state_dir / f"{self._executor_id}.lock")

    async def launch(self) -> None:
        """Take up what a former process left and begin to run jobs."""
        assert self._lock is not None, "launch before hold"
        database = self._state_dir / "dbos.sqlite"
        await to_thread.run_sync(self._prepare, database)
        DBOS(config=self._config(database))
        _log_as_everything_else()

        async def carry(job_id: str) -> None:  # DBOS marks the function itself, which a bound method does not allow
            await self._carry(job_id)

        self._workflow = DBOS.workflow(name="run_job", max_recovery_attempts=MAX_RECOVERY_ATTEMPTS)(carry)
        DBOS.launch()  # on the loop, which it adopts for the jobs; a tenth of a second, before anything is served

    async def submit(self, job_id: str, priority: int) -> None:
        """Have the job run when its turn comes. Submitting it again changes nothing."""
        assert self._workflow is not None, "submit before launch"
        with SetWorkflowID(job_id), SetEnqueueOptions(priority=priority):
            await DBOS.enqueue_workflow_async(QUEUE, self._workflow, job_id)

    async def cancel(self, job_id: str) -> None:
        """Keep the job from starting, or stop it where it is."""
        await DBOS.cancel_workflow_async(job_id)
        if task := self._running.get(job_id):
            task.cancel()

    async def forget(self, job_id: str) -> None:
        """Drop what is remembered of an ended job."""
        await DBOS.delete_workflow_async(job_id)

    async def recover(self, unfinished: Iterable[JobRecord]) -> list[str]:
        """Submit the jobs that never reached the engine; return the ids of those that it gave up."""
        given_up = []
        for job in unfinished:
            workflow = await DBOS.get_workflow_status_async(job.id)
            if workflow is None:
                await self.submit(job.id, job.priority)
            elif workflow.status not in ("ENQUEUED", "PENDING", "DELAYED"):
                given_up.append(job.id)
        return given_up

    async def shutdown(self) -> None:
        """Stop at once. Jobs at work stay unfinished and go on at the next launch."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        await to_thread.run_sync(lambda: DBOS.destroy(destroy_registry=True))
        if self._lock is not None:
            self._lock.close()

    async def _carry(self, job_id: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running[job_id] = task
        try:
            await self._run_job(job_id, _step)
        finally:
            self._running.pop(job_id, None)

    def _config(self, database: Path) -> DBOSConfig:
        return DBOSConfig(
            name=APPLICATION, system_database_url=_url(database), executor_id=self._executor_id,
            application_version=APPLICATION_VERSION, serializer=DBOSPortableJSONSerializer(), enable_otlp=False,
            log_level="WARNING", notification_listener_polling_interval_sec=0.2,
        )

    def _prepare(self, database: Path) -> None:
        """Make the database and the queue. A queue that is there at launch is polled from the first moment on."""
        _use_wal(database)
        DBOS.migrate(_url(database))
        client = DBOSClient(
            system_database_url=_url(database), serializer=DBOSPortableJSONSerializer(), application_name=APPLICATION
        )
        try:
            client.register_queue(
                QUEUE, worker_concurrency=self._concurrency, polling_interval_sec=self._poll_s,
                on_conflict="always_update", application_name=APPLICATION,
            )
        finally:
            client.destroy()


async def _step(name: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
    async def run() -> Answer:
        return await work()

    # preemptible: a job canceled by another process on the same database stops here within a second.
    return await DBOS.run_step_async({"name": name, "preemptible": True}, run)


def _hold(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    deadline = time.monotonic() + _LOCK_WAIT_S  # the process before this one may just be ending
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise StateInUse(
                    f"Another gateway works in {path.parent}: stop it, or set STILLMOTION_DATA to another folder."
                ) from None
            time.sleep(0.1)


def _url(database: Path) -> str:
    return f"sqlite:///{database.absolute()}"


def _use_wal(database: Path) -> None:
    # Before DBOS opens it: its own default (a rollback journal) takes four times as long for each write.
    connection = sqlite3.connect(database)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _log_as_everything_else() -> None:
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.propagate = True
    logger.addFilter(_is_no_cancellation)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Canceling a job and stopping the process are no errors, though DBOS reports them with a traceback."""
    kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
    return "WorkflowCancelled" not in kind and not record.getMessage().startswith("Asyncio task cancelled")
