"""The embedded engine: ImageNet tower → our own small decoder, which says its record of a picture and every text."""

from collections.abc import Sequence
from pathlib import Path

import torch

from contracts.models import VLModelInfo
from vl_service.backend import Answer, Deadline, Description, Task
from vl_service.embedded.checkpoint import load_generator
from vl_service.embedded.model.generator import Generator
from vl_service.embedded.model.record import facts_as_text
from vl_service.embedded.text.answers import Answers
from vl_service.embedded.text.naming import definite
from vl_service.embedded.text.prompt import write_prompt
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import profiles


class EmbeddedBackend:
    """Looks at a picture once and tells of it, task after task, from one cache."""

    def __init__(self, generator: Generator, revision: str) -> None:
        self._generator = generator
        self._info = VLModelInfo(
            id="embedded", revision=revision, engine="embedded-cpu", dtype="float32",
            tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"],
            profiles=list(profiles()),
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is."""
        return self._info

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `backend.Backend.describe`."""
        deadline.check()
        if picture is None:
            return Description(answers=[Answer(text=write_prompt(None, task)) for task in tasks], facts={})
        observation = self._generator.see(picture, deadline.check)
        answers = Answers(self._generator, observation, deadline.check)
        if not answers.keeps_name():
            observation = self._generator.see(picture, deadline.check, named=False)
            answers = Answers(self._generator, observation, deadline.check)
        return Description(
            answers=[_answer(answers, task) for task in tasks],
            facts=facts_as_text(observation.record, observation.facts, answers.guess.name if answers.guess else ""))


def _answer(answers: Answers, task: Task) -> Answer:
    text = _text(answers, task)
    record = answers.record
    named = bool(record.name) and _names(answers, task, text)
    return Answer(text=text, confidence=record.confidence if named else None)


def _text(answers: Answers, task: Task) -> str:
    if task.kind == "prompt":
        return write_prompt(answers, task)
    if task.kind == "caption":
        return answers.caption(task.language, task.max_new_tokens, task.seed)
    if task.kind == "edit_suggestion":
        return answers.suggestions(task.language, task.max_new_tokens, task.seed)
    assert task.question is not None
    return answers.answer(task.question, task.language, task.max_new_tokens)


def _names(answers: Answers, task: Task, text: str) -> bool:
    """Whether the text names the subject, which is what the confidence speaks of."""
    if task.kind in ("caption", "edit_suggestion"):
        return task.kind == "caption"  # that always does, and three lines may or may not
    noun = definite(answers.phrase(task.language), task.language).removeprefix("the ")
    return noun.lower() in text.lower()


def load_embedded(folder: Path, threads: int) -> EmbeddedBackend:
    """Load the checkpoint in the folder, to run on so many CPU threads, 0 for one.

    A word is a few small products, and a second thread waits for them more than it works.

    Raises:
        EmbeddedCheckpointError: a file is missing or damaged.
    """
    torch.set_num_threads(threads or 1)
    return EmbeddedBackend(*load_generator(folder))
