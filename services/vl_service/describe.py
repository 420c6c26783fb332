"""The story of one request: resolve the tasks, look at the image, let the model speak, polish what it says."""

import time
from collections.abc import Sequence

from contracts.describe import DescribeRequest, DescribeResponse, DescribeTask, TaskResult
from contracts.refusal import Refusal
from vl_service.backend import Answer, Backend, Deadline, Task
from vl_service.images import SAID, DecodedImage, Fault
from vl_service.model import Model
from vl_service.prompts.polish import clean, lines, polish_prompt, polish_text
from vl_service.prompts.profiles import Profile, profile_named, template_named
from vl_service.prompts.shots import asks_for_move

MAX_CAPTION = {"en": 120, "zh": 240}  # words, characters
MAX_ANSWER = {"en": 160, "zh": 320}
SUGGESTIONS = 3


class NothingToDescribeError(Refusal):
    """The tasks need an image or words that the request does not have; the message says which."""

    status, code, title = 422, "nothing_to_describe", "Nothing to describe"


async def describe(model: Model, request: DescribeRequest) -> DescribeResponse:
    """Answer every task of a request, in order.

    Raises:
        UnknownProfileError, UnknownTemplateError, NothingToDescribeError, ImageUnreadable: it cannot be answered.
        Refusal: not now, as `Model.answer`.
    """
    started = time.monotonic()
    tasks = resolve_tasks(request)
    return await model.answer(request.image, tasks, started, max_pixels=request.max_pixels)


def resolve_tasks(request: DescribeRequest) -> list[Task]:
    """Tasks with their profile and the language to answer in; refuses what cannot be answered."""
    profile = profile_named(request.profile)
    for task in request.tasks:
        if request.image is None and task.kind not in ("prompt", "verdict"):
            raise NothingToDescribeError(
                f"The task `{task.kind}` needs `image`; only `prompt` and `verdict` work from words alone.")
        if request.image is None and task.user_prompt is None:
            raise NothingToDescribeError(f"A `{task.kind}` task needs `image`, `user_prompt` or both.")
    return [_resolve(task, request, profile) for task in request.tasks]


def _resolve(task: DescribeTask, request: DescribeRequest, profile: Profile) -> Task:
    language = profile.language_for(request.language) if task.kind == "prompt" else request.language
    return Task(
        kind=task.kind, language=language, profile=profile, seed=request.seed, max_new_tokens=request.max_new_tokens,
        question=task.question, user_prompt=task.user_prompt, instruction=task.instruction,
        template=None if task.template is None else template_named(task.template, language),
    )


def answer(
    backend: Backend, image: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline, started: float
) -> DescribeResponse:
    """Let the model speak and polish what it says; runs in the worker. `started` is of `time.monotonic`."""
    description = backend.describe(image, tasks, deadline)
    faults = () if image is None else image.faults
    return DescribeResponse(
        results=[_polished(task, said, faults) for task, said in zip(tasks, description.answers, strict=True)],
        model=backend.info.id, revision=backend.info.revision, engine=backend.info.engine,
        seconds=time.monotonic() - started,
        facts=dict(description.facts), cache=description.cache,
    )


def _polished(task: Task, said: Answer, faults: Sequence[Fault]) -> TaskResult:
    confidence = None if said.confidence is None else round(said.confidence, 3)
    negative = ", ".join(filter(None, [task.profile.negative_prompt, *said.avoid])) if task.kind == "prompt" else ""
    return TaskResult(
        kind=task.kind, text=_polish(task, said.text), verdict=said.verdict, confidence=confidence,
        negative_prompt=negative or None,
        warnings=[*said.warnings, *(SAID[fault] for fault in faults)])


def _polish(task: Task, text: str) -> str:
    if task.kind == "prompt":
        profile = task.profile
        return polish_prompt(
            text, language=task.language, limit=profile.limit(task.language), user_prompt=task.user_prompt,
            camera=profile.invents_camera or asks_for_move(task.wishes))
    if task.kind == "edit_suggestion":
        return lines(clean(text), SUGGESTIONS)
    limits = MAX_CAPTION if task.kind == "caption" else MAX_ANSWER
    return polish_text(text, language=task.language, limit=limits[task.language])
