"""What begins with an earlier video: a remix, the last prompt of a conversation, a clip that goes on."""

from dataclasses import replace
from typing import Any

from contracts.jobs import EffectiveParameters, GenerateOptions, VideoFile
from contracts.refusal import ParameterRefused, Refusal
from contracts.videos import MAX_CLIP_BYTES
from gateway.jobs.job import JobRecord, JobState
from gateway.submit.bodies import Submission
from gateway.submit.conversations import Conversation


class NotRemixable(Refusal):
    """Only a completed video can be remixed; nothing was made."""

    status, code, title = 409, "video_not_completed", "The video is not completed"

    def __init__(self, job_id: str, state: JobState) -> None:
        super().__init__(f"Only a completed video can be remixed; this one is {state}.", job_id=job_id)


class NotContinuable(Refusal):
    """The video cannot be continued, now or at all; nothing was made."""

    status, code, title = 409, "not_continuable", "The video cannot be continued"

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"{job_id} cannot be continued: {why}.", job_id=job_id)


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


def extended(submission: Submission, before: JobRecord) -> Submission:
    """The submission that goes on from the video of `before`, with what that had where nothing is asked.

    Raises:
        NotContinuable: it has no video (any more).
        ParameterRefused: there is another picture beside it, or what is asked does not go behind it.
    """
    options, video = submission.options, before.video
    if before.state != "completed" or video is None or before.expired_at is not None:
        gone = "its files have expired" if before.expired_at is not None else f"it is {before.state}"
        raise NotContinuable(before.id, gone)
    _check_beside(submission, video)
    update = _inherited(options, before.parameters) | {
        "size": None, "width": video.width, "height": video.height, "fps": video.fps, "seed": options.seed,
        "negative_prompt": options.negative_prompt or before.request.negative_prompt,
    }
    if not options.loras and options.model in (None, before.parameters.model):
        update["loras"] = before.parameters.loras
    if options.prompt is None and options.instruction is None:
        update |= {"prompt": before.actual_prompt, "enhance": "never"}
    return replace(submission, extends=before, options=options.model_copy(update=update))


def _check_beside(submission: Submission, video: VideoFile) -> None:
    options = submission.options
    if (submission.image, submission.image_url, submission.file_id) != (None, None, None):
        raise ParameterRefused("image_given_twice", "extend_from", "Send either a picture or `extend_from`.")
    if options.conversation is not None:
        raise ParameterRefused(
            "prompt_given_twice", "extend_from", "Send either `conversation` or `extend_from` with a `prompt`.")
    size = f"{video.width}x{video.height}"
    asked = {"size": (options.size, size), "width": (options.width, video.width),
             "height": (options.height, video.height), "fps": (options.fps, video.fps)}
    for field, (wanted, present) in asked.items():
        if wanted not in (None, present):
            raise ParameterRefused(
                "extension_differs", field,
                f"The video to go on from has {size} pixels at {video.fps} frames a second: leave `{field}` out.")
    if video.num_bytes > MAX_CLIP_BYTES:
        raise ParameterRefused(
            "clip_too_large", "extend_from",
            f"That video has {video.num_bytes} bytes; up to {MAX_CLIP_BYTES} can be continued.")


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
