"""How a job ends by its owner's hand: canceled where it is, or removed when it has ended."""

from gateway.jobs import IllegalTransition, JobRecord
from gateway.ledger import off_loop
from gateway.runtime import Gateway


async def cancel(job_id: str, gateway: Gateway) -> JobRecord:
    """Cancel a queued or running job; canceling a canceled one changes nothing.

    Raises:
        JobNotFound: there is no such job.
        IllegalTransition: it has completed or failed.
    """
    before = await gateway.ledger.get(job_id)
    if before.state == "canceled":
        return before
    job = await gateway.ledger.move(job_id, "canceled")
    await gateway.engine.cancel(job_id)
    if before.state == "running":
        await gateway.video.stop(job_id)  # the job's own task tries, too
    return job


async def remove(job_id: str, gateway: Gateway) -> None:
    """Forget an ended job and remove its files.

    Raises:
        JobNotFound: there is no such job.
        IllegalTransition: it has not ended; cancel it first.
    """
    job = await gateway.ledger.get(job_id)
    if not job.finished:
        raise IllegalTransition(job_id, job.state, "removed")
    await gateway.ledger.remove(job_id)
    await off_loop(gateway.files.remove_job, job_id)
    await gateway.engine.forget(job_id)
