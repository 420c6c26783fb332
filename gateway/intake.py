"""The door: a request is checked completely before anything of it is stored."""

import hashlib
import logging

from anyio import to_thread

from gateway.bodies import BodyRefused, Submission
from gateway.callers import Caller, priority_for
from gateway.jobs import JobRecord, NewJob, StoredPicture, new_job_id
from gateway.ledger import off_loop
from gateway.parameters import resolve
from gateway.request_ids import current_request_id
from gateway.runtime import Gateway
from gateway.uploads import Picture, check_picture

log = logging.getLogger(__name__)

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}


async def accept(submission: Submission, caller: Caller, gateway: Gateway) -> JobRecord:
    """Check, store and queue a request on behalf of `caller`.

    Raises:
        BodyRefused, PictureRefused, ParameterRefused, QueueFull, OwnerQueueFull: nothing is left behind.
        ServiceError: the video service was never reached, so nothing can be checked against its model.
    """
    options = submission.options
    if submission.image is None and options.prompt is None:
        raise BodyRefused("nothing_to_animate", "Send a picture as `image`, or words as `prompt`, or both.")
    videos, vls = await gateway.catalog.video_models(), await gateway.catalog.known_vl_models()
    picture = None if submission.image is None else await checked(submission.image, gateway)
    parameters = resolve(options, videos, vls, None if picture is None else (picture.width, picture.height))
    priority, demoted = priority_for(caller, options.priority)
    job_id = new_job_id()
    try:
        stored = None if picture is None else await _store_picture(job_id, picture, gateway)
        job = await gateway.ledger.add(
            NewJob(
                id=job_id, owner=caller.owner, request=options, parameters=parameters, picture=stored,
                priority=priority, warnings=(picture.warnings if picture else ()) + demoted,
                request_id=current_request_id() or job_id,
            ),
            gateway.settings.max_queued_jobs, caller.max_jobs,
        )
    except BaseException:
        await off_loop(gateway.files.remove_job, job_id)
        raise
    await _submit(job, gateway)
    return job


async def checked(image: bytes, gateway: Gateway) -> Picture:
    """The picture, decoded and encoded anew in a thread, few at a time."""
    return await to_thread.run_sync(check_picture, image, gateway.picture_limits, limiter=gateway.decodes)


async def _store_picture(job_id: str, picture: Picture, gateway: Gateway) -> StoredPicture:
    name = f"input{_SUFFIX[picture.media_type]}"
    await off_loop(gateway.files.write, job_id, name, picture.data)
    return StoredPicture(
        file=name, media_type=picture.media_type, num_bytes=len(picture.data),
        sha256=hashlib.sha256(picture.data).hexdigest(), width=picture.width, height=picture.height,
    )


async def _submit(job: JobRecord, gateway: Gateway) -> None:
    try:
        await gateway.engine.submit(job.id, job.priority)
    except Exception:
        # The job is in the table: `recover` submits it. Refusing now would be a lie.
        log.exception("job %s was stored but not yet submitted", job.id, extra={"job_id": job.id})
