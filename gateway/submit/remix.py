"""A video once more with other words: a remix, or the last prompt of a conversation."""

from dataclasses import replace
from typing import Any

from contracts.jobs import EffectiveParameters, GenerateOptions
from contracts.refusal import ParameterRefused, Refusal
from gateway.jobs.job import JobRecord, JobState
from gateway.submit.bodies import Submission
from gateway.submit.conversations import Conversation


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


def continued(submission: Submission, conversation: Conversation, last: EffectiveParameters | None) -> Submission:
    """The submission with the conversation's last prompt, and what `last`, its last video, had where nothing is asked.

    Raises:
        ParameterRefused: there is no prompt in it, or another one beside it.
    """
    options = submission.options
    if options.prompt is not None:
        raise ParameterRefused(
            "prompt_given_twice", "conversation", "Send either `prompt` or `conversation`, whose last prompt is used.")
    if conversation.prompt is None:
        raise ParameterRefused(
            "conversation_without_prompt", "conversation",
            'No prompt was written in this conversation: send a message with `tasks`: [{"kind": "prompt"}] first.')
    asked: dict[str, Any] = {} if last is None else _inherited(options, last)
    return replace(submission, conversation=conversation, options=options.model_copy(
        update=asked | {"prompt": conversation.prompt, "enhance": "never"}))


def _inherited(options: GenerateOptions, last: EffectiveParameters) -> dict[str, Any]:
    asked: dict[str, Any] = {} if options.seed is not None else {"seed": last.seed}
    if options.model not in (None, last.model):
        return asked  # another model has other bounds
    asked |= {"model": last.model}
    if options.size is None and options.width is None and options.height is None:
        asked |= {"width": last.width, "height": last.height}
    if options.seconds is None and options.num_frames is None:
        asked |= {"num_frames": last.num_frames, "fps": options.fps or last.fps}
    if options.steps is None and options.sampler is None:
        asked |= {"steps": last.steps, "sampler": last.sampler}
        if options.guidance_scale is None:
            asked |= {"guidance_scale": last.guidance_scale, "guidance_scale_2": last.guidance_scale_2}
    return asked
