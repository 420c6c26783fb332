"""The embedded engine: ImageNet tower → our own small decoder, which says its record of a picture and every text."""

from collections.abc import Sequence
from pathlib import Path

import torch

from contracts.models import VLModelInfo
from vl_service.backend import Answer, Deadline, Description, Task
from vl_service.embedded.checkpoint import load_speaker
from vl_service.embedded.model.generator import Speaker
from vl_service.embedded.model.record import facts_as_text
from vl_service.embedded.text.answers import Teller
from vl_service.embedded.text.naming import definite
from vl_service.embedded.text.prompt import write_prompt
from vl_service.images import Picture
from vl_service.prompts.profiles import profiles


class EmbeddedEngine:
    """Looks at a picture once and tells of it, task after task, from one cache."""

    def __init__(self, speaker: Speaker, revision: str) -> None:
        self._speaker = speaker
        self._info = VLModelInfo(
            id="embedded", revision=revision, engine="embedded-cpu", dtype="float32",
            tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"],
            profiles=list(profiles()),
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is."""
        return self._info

    def describe(self, picture: Picture | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `engine.Engine.describe`."""
        deadline.check()
        if picture is None:
            return Description(answers=[Answer(text=write_prompt(None, task)) for task in tasks], facts={})
        glimpse = self._speaker.see(picture, deadline.check)
        teller = Teller(self._speaker, glimpse, deadline.check)
        if not teller.keeps_name():
            glimpse = self._speaker.see(picture, deadline.check, named=False)
            teller = Teller(self._speaker, glimpse, deadline.check)
        return Description(
            answers=[_answer(teller, task) for task in tasks],
            facts=facts_as_text(glimpse.record, glimpse.facts, teller.guess.name if teller.guess else ""))


def _answer(teller: Teller, task: Task) -> Answer:
    text = _text(teller, task)
    record = teller.record
    named = bool(record.name) and _names(teller, task, text)
    return Answer(text=text, confidence=record.confidence if named else None)


def _text(teller: Teller, task: Task) -> str:
    if task.kind == "prompt":
        return write_prompt(teller, task)
    if task.kind == "caption":
        return teller.caption(task.language, task.max_new_tokens, task.seed)
    if task.kind == "edit_suggestion":
        return teller.suggestions(task.language, task.max_new_tokens, task.seed)
    assert task.question is not None
    return teller.answer(task.question, task.language, task.max_new_tokens)


def _names(teller: Teller, task: Task, text: str) -> bool:
    """Whether the text names the subject, which is what the confidence speaks of."""
    if task.kind in ("caption", "edit_suggestion"):
        return task.kind == "caption"  # that always does, and three lines may or may not
    noun = definite(teller.phrase(task.language), task.language).removeprefix("the ")
    return noun.lower() in text.lower()


def load_embedded(folder: Path, threads: int) -> EmbeddedEngine:
    """Load the checkpoint in the folder, to run on so many CPU threads, 0 for one.

    A word is a few small products, and a second thread waits for them more than it works.

    Raises:
        EmbeddedCheckpointError: a file is missing or damaged.
    """
    torch.set_num_threads(threads or 1)
    return EmbeddedEngine(*load_speaker(folder))
