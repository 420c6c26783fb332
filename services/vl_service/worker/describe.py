"""The worker's side of a description: let the model look and speak, polish what it says."""

import time
from collections.abc import Sequence

from contracts.describe import DescribeResponse, TaskResult
from vl_service.backend import Answer, Backend, Deadline, Task
from vl_service.images import SAID, DecodedImage, Fault
from vl_service.prompts.polish import clean, lines, polish_prompt, polish_text
from vl_service.prompts.shots import asks_for_move

MAX_CAPTION = {"en": 120, "zh": 240}  # words, characters
MAX_ANSWER = {"en": 160, "zh": 320}
SUGGESTIONS = 3


def answer(
    backend: Backend, image: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline, started: float
) -> DescribeResponse:
    """Let the model speak and polish what it says. `started` is of `time.monotonic`."""
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
