"""A video once more with other words."""

from contracts.refusal import Refusal
from gateway.jobs.job import JobRecord, JobState
from gateway.submit.bodies import Submission


class NotRemixable(Refusal):
    """Only a completed video can be remixed; nothing was made."""

    status, code, title = 409, "video_not_completed", "The video is not completed"

    def __init__(self, job_id: str, state: JobState) -> None:
        super().__init__(f"Only a completed video can be remixed; this one is {state}.", job_id=job_id)


def remix_of(job: JobRecord, prompt: str) -> Submission:
    """The same request with another prompt: same picture, and every effective parameter as it was, the seed too.

    Raises:
        NotRemixable: the video is not completed.
    """
    if job.state != "completed":
        raise NotRemixable(job.id, job.state)
    used = job.parameters
    options = job.request.model_copy(update={
        "prompt": prompt, "model": used.model, "size": None, "width": used.width, "height": used.height,
        "seconds": None, "num_frames": used.num_frames, "fps": used.fps, "steps": used.steps, "sampler": used.sampler,
        "guidance_scale": used.guidance_scale, "seed": used.seed,
    })
    return Submission(options=options, remixed_from=job)
