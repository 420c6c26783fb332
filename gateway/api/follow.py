"""Waiting for a job, and following it as server-sent events."""

import hashlib
import time
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from contracts.jobs import TERMINAL_JOB_STATES, Job
from gateway.jobs.job import JobNotFound, JobRecord
from gateway.jobs.ledger import Ledger
from gateway.jobs.views import view

_LOOK_AGAIN_S = 5.0  # a change made by another process wakes nobody here


async def wait_until_ended(job_id: str, ledger: Ledger, seconds: float) -> JobRecord:
    """The job once it has ended, or as it is after `seconds`; raises `JobNotFound`."""
    deadline = time.monotonic() + seconds
    with ledger.live.watch(job_id) as watcher:
        while True:
            watcher.up_to_date()
            job = await ledger.get(job_id)
            left = deadline - time.monotonic()
            if job.finished or left <= 0:
                return job
            await watcher.wait(min(left, _LOOK_AGAIN_S))


async def event_stream(job_id: str, ledger: Ledger, last_event_id: str | None, heartbeat_s: float,
                       ) -> AsyncIterator[bytes]:
    """The job as SSE: whole at first and at every change, under the event name of its state; ends with the job.

    An event's id names its content, so a client that reconnects (to any process, at any time later) is not told again
    what it knows, and what it missed is contained in the next event.
    """
    told = last_event_id
    with ledger.live.watch(job_id) as watcher:
        try:
            record: JobRecord | None = None
            while True:
                outdated = watcher.outdated
                watcher.up_to_date()
                if record is None or outdated or not ledger.waits(record):
                    record = await ledger.get(job_id)
                job = await view(record, ledger)
                ledger.live.waits_in_queue(job_id, job.state == "queued")
                body, event_id = encode(job)
                if event_id != told:
                    told = event_id
                    yield format_sse_event(data_str=body, event=job.state, id=event_id)
                if job.state in TERMINAL_JOB_STATES:
                    return
                if not await watcher.wait(heartbeat_s):
                    yield KEEPALIVE_COMMENT
        except JobNotFound:
            return  # removed while it was followed


def encode(job: Job) -> tuple[str, str]:
    """The data of an event, and the id that names it."""
    body = job.model_dump_json(exclude_none=True)
    return body, hashlib.sha256(body.encode()).hexdigest()[:16]
