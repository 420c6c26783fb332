"""The door: a request is checked completely before anything of it is stored."""

import logging
from dataclasses import replace

from gateway.addresses import AddressRefused
from gateway.bodies import BodyRefused, Submission
from gateway.callers import Caller, priority_for
from gateway.jobs import JobRecord, NewJob, new_job_id
from gateway.ledger import off_loop
from gateway.parameters import ParameterRefused, resolve
from gateway.pictures import picture_of, store_picture
from gateway.request_ids import current_request_id
from gateway.room import check_room
from gateway.runtime import Gateway
from gateway.uploads import Picture
from gateway.webhooks import check_address

log = logging.getLogger(__name__)

MAX_KEY_CHARS = 255


async def accept(
    submission: Submission, caller: Caller, gateway: Gateway, idempotency_key: str | None = None
) -> tuple[JobRecord, bool]:
    """Check, store and queue a request on behalf of `caller`; true where an earlier one had made the job already.

    Raises:
        BodyRefused, ParameterRefused, DiskFull, QueueFull, OwnerQueueFull, KeyReused, and what `picture_of` raises:
            nothing is left behind.
        ServiceError: the video service was never reached, so nothing can be checked against its model.
    """
    if not submission.has_picture and submission.options.prompt is None:
        raise BodyRefused("nothing_to_animate", "Send a picture as `image`, or words as `prompt`, or both.")
    fingerprint = None
    if idempotency_key is not None:
        _check_key(idempotency_key)
        fingerprint = await off_loop(submission.fingerprint)
        before = await gateway.ledger.made_before(caller.owner, idempotency_key, fingerprint)
        if before is not None:
            return before, True
    await check_room(gateway.settings)
    await _check_webhook(submission.options.webhook_url, gateway)
    picture = await picture_of(submission, caller, gateway)
    job = await _new_job(submission, caller, gateway, picture, idempotency_key, fingerprint)
    return await _enter(job, caller, gateway, picture)


async def _new_job(
    submission: Submission, caller: Caller, gateway: Gateway, picture: Picture | None, idempotency_key: str | None,
    fingerprint: str | None,
) -> NewJob:
    videos, vls = await gateway.catalog.video_models(), await gateway.catalog.known_vl_models()
    size = None if picture is None else (picture.width, picture.height)
    priority, demoted = priority_for(caller, submission.options.priority)
    job_id = new_job_id()
    return NewJob(
        id=job_id, owner=caller.owner, request=submission.options,
        parameters=resolve(submission.options, videos, vls, size), picture=None,
        priority=priority, warnings=(picture.warnings if picture else ()) + demoted,
        request_id=current_request_id() or job_id, idempotency_key=idempotency_key,
        fingerprint=fingerprint, remixed_from=submission.remixed_from.id if submission.remixed_from else None,
    )


async def _enter(job: NewJob, caller: Caller, gateway: Gateway, picture: Picture | None) -> tuple[JobRecord, bool]:
    try:
        if picture is not None:
            job = replace(job, picture=await store_picture(job.id, "input", picture, gateway))
        stored = await gateway.ledger.add(job, gateway.settings.max_queued_jobs, caller.max_jobs)
    except BaseException:
        await off_loop(gateway.files.remove_job, job.id)
        raise
    if stored.id != job.id:  # the same request, sent twice at once, came first
        await off_loop(gateway.files.remove_job, job.id)
        return stored, True
    await _submit(stored, gateway)
    return stored, False


async def _check_webhook(url: str | None, gateway: Gateway) -> None:
    if url is None:
        return
    try:
        await check_address(url, gateway.courier.rules)
    except AddressRefused as error:
        raise ParameterRefused(f"webhook_{error.code}", "webhook_url", error.detail) from None


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise BodyRefused(
            "idempotency_key_invalid", f"An Idempotency-Key has 1 to {MAX_KEY_CHARS} printable characters."
        )


async def _submit(job: JobRecord, gateway: Gateway) -> None:
    try:
        await gateway.engine.submit(job.id, job.turn)
    except Exception:
        # The job is in the table: `recover` submits it. Refusing now would be a lie.
        log.exception("job %s was stored but not yet submitted", job.id, extra={"job_id": job.id})
