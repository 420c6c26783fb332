"""`stillmotion generate`: one picture through a running gateway, start to file."""

import asyncio
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from contracts.jobs import GenerateOptions, Job
from gateway.cli.client.jobs import GatewayFailure, JobClient, Server, job_client, problem_sentence
from gateway.cli.client.show import job_view, show_outcome

_CANCEL_S = 5.0


async def generate(
    console: Console, server: Server, options: GenerateOptions, image: Path | None, output: Path, timeout_s: float
) -> Job:
    """Submit, follow, download and show one job; cancels it on the server when this task is cancelled.

    Raises:
        GatewayFailure: with a sentence for a person, when there is no video.
    """
    async with job_client(server) as client:
        job = await _submit(console, client, options, image)
        try:
            job = await _follow(console, client, job, timeout_s)
            _refuse_unfinished(job)
            await client.download(job, output)
        except asyncio.CancelledError:
            await _give_up(console, client, job)
            raise
    show_outcome(console, job)
    return job


async def _submit(console: Console, client: JobClient, options: GenerateOptions, image: Path | None) -> Job:
    # Shielded: a Ctrl-C while the picture travels must still learn the job's id, or the job would run for nobody.
    sending = asyncio.ensure_future(client.submit(options, image))
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        with suppress(TimeoutError, GatewayFailure):
            await _give_up(console, client, await asyncio.wait_for(sending, _CANCEL_S))
        raise


async def _follow(console: Console, client: JobClient, job: Job, timeout_s: float) -> Job:
    try:
        with job_view(console) as view:
            view.update(job)
            async with asyncio.timeout(timeout_s):
                async for current in client.follow(job):
                    view.update(current)
                    job = current
    except TimeoutError:
        raise GatewayFailure(
            f"Job {job.id} did not end within {timeout_s:.0f} s. It goes on: {job.urls.self}"
        ) from None
    return job


def _refuse_unfinished(job: Job) -> None:
    if job.state == "canceled":
        raise GatewayFailure(f"Job {job.id} was canceled.")
    if job.state != "completed":
        raise GatewayFailure(problem_sentence(job.error) if job.error else f"Job {job.id} ended as {job.state}.")


async def _give_up(console: Console, client: JobClient, job: Job) -> None:
    try:
        async with asyncio.timeout(_CANCEL_S):
            await client.cancel(job)
    except (TimeoutError, GatewayFailure) as failure:
        console.print(Text(f"Job {job.id} could not be canceled: {failure or 'no answer in time'}", style="red"))
    else:
        console.print(f"Canceled job {job.id}.", highlight=False)
