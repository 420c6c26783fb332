"""How a route reaches the open parts of the process, who calls it, and the caller's own jobs."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from gateway.auth.callers import Caller, network_of
from gateway.auth.keys import LOCAL_OWNER
from gateway.jobs.job import JobNotFound, JobRecord
from gateway.runtime import Gateway

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="A key of this server, such as `sm_…`.")


async def _gateway(request: Request) -> Gateway:  # not a plain function: those are run in threads, for every request
    gateway: Gateway = request.app.state.gateway
    return gateway


OpenGateway = Annotated[Gateway, Depends(_gateway)]


async def _caller(
    request: Request, gateway: OpenGateway, given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Caller:
    # Looking, following, canceling and removing are free: refusing them would only make their owner try again.
    asks_for_work = request.method == "POST" and not request.url.path.endswith("/cancel")
    return await gateway.door.admit(given.credentials if given else None, asks_for_work=asks_for_work)


TheCaller = Annotated[Caller, Depends(_caller)]
"""Declared by every route but health and docs: refuses whoever has no key, and one that asks too often."""


def one_wait(request: Request, caller: Caller, gateway: Gateway) -> AbstractContextManager[None]:
    """The caller waits during the block, as a key or, where none is needed, from an address; see `Waits.one`."""
    who = network_of(request.client.host if request.client else None) if caller.owner == LOCAL_OWNER else caller.owner
    return gateway.waits.one(who)


async def _one_wait(request: Request, caller: TheCaller, gateway: OpenGateway) -> AsyncIterator[None]:
    with one_wait(request, caller, gateway):
        yield


WhileAnswered = Depends(_one_wait)
"""Declared by a route whose answer is a stream: it counts among its caller's waits until it ends."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255,
        description="Yours, at most 255 characters. Sent again with the same body, it leads to the same job; with "
        "another body the request is refused.",
    ),
]

REPLAYED = "Idempotent-Replayed"
"""Header of an answer whose job an earlier request with the same key had made."""

After = Annotated[str | None, Query(max_length=64, description="`last_id` of the page before.")]
PageSize = Annotated[int, Query(ge=1, le=100)]

JobId = Annotated[str, Path(description="The job's `id`.", max_length=64, examples=["job_5f0c6b1e9a2d4c7f"])]


async def own_job(job_id: str, caller: Caller, gateway: Gateway) -> JobRecord:
    """The caller's job of this id; `JobNotFound` where there is none, or it is another owner's."""
    job = await gateway.ledger.get(job_id)
    if job.owner != caller.owner:
        raise JobNotFound(job_id)
    return job


async def _own_job(job_id: JobId, caller: TheCaller, gateway: OpenGateway) -> JobRecord:
    return await own_job(job_id, caller, gateway)


OwnJob = Annotated[JobRecord, Depends(_own_job)]
"""The job of the path parameter `job_id`, if it is the caller's."""
