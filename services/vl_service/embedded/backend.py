"""The embedded engine: ImageNet tower → our own small decoder, which says its record of a picture and every text."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from contracts.chat import ChatOptions, Turn
from contracts.models import VLModelInfo
from vl_service.backend import Answer, CannotReplyError, Deadline, Description, Pieces, Task
from vl_service.embedded import dialogue
from vl_service.embedded.checkpoint import load_generator
from vl_service.embedded.model.generator import ASKED_AT_MOST, Generator
from vl_service.embedded.model.record import facts_as_text
from vl_service.embedded.text.answers import Answers
from vl_service.embedded.text.languages import Knows, is_unread
from vl_service.embedded.text.naming import definite
from vl_service.embedded.text.prompt import write_prompt
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import profiles, templates, wording

_UNREAD = (
    "The {field} is in a language that the embedded demo model does not know (it knows English and Chinese): {what}.")
_WHAT_THEN = {
    "prompt": "its words stand in the video's prompt as they are, and what they ask of the motion is not known",
    "instruction": "it was not followed",
    "question": "it was not understood",
}


class EmbeddedBackend:
    """Looks at a picture once and tells of it, task after task, from one cache."""

    concurrent = False

    def __init__(self, generator: Generator, revision: str) -> None:
        self._generator = generator
        self._info = VLModelInfo(
            id="embedded", revision=revision, engine="embedded-cpu", dtype="float32",
            tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"],
            profiles=list(profiles()), wording=wording(), templates=templates(), at_once=1,
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is."""
        return self._info

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `backend.Backend.describe`."""
        deadline.check()
        if any(task.kind == "verdict" for task in tasks):
            raise CannotReplyError("The embedded demo model judges nothing; set VL_MODEL to a Qwen-VL checkpoint.")
        if picture is None:
            return Description(answers=[self._answer(None, task) for task in tasks], facts={})
        observation = self._generator.see(picture, deadline.check)
        answers = Answers(self._generator, observation, deadline.check)
        if not answers.keeps_name():
            observation = self._generator.see(picture, deadline.check, named=False)
            answers = Answers(self._generator, observation, deadline.check)
        return Description(
            answers=[self._answer(answers, task) for task in tasks],
            facts=facts_as_text(observation.record, observation.facts, answers.guess.name if answers.guess else ""))

    def chat(
        self, turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions, deadline: Deadline
    ) -> Pieces:
        """See `backend.Backend.chat`."""
        return dialogue.reply(self, self._generator.tokenizer, turns, images, options, deadline)

    def _answer(self, answers: Answers | None, task: Task) -> Answer:
        """Without a picture only a prompt can be written."""
        knows = self._generator.tokenizer.knows
        warnings = tuple(_warnings(answers, task, knows))
        if answers is None:
            return Answer(text=write_prompt(None, task, knows), warnings=warnings)
        text = write_prompt(answers, task, knows) if task.kind == "prompt" else _text(answers, task)
        named = bool(answers.record.name) and _names(answers, task, text)
        return Answer(text=text, confidence=answers.record.confidence if named else None, warnings=warnings)


def _warnings(answers: Answers | None, task: Task, knows: Knows) -> Iterator[str]:
    """What of the user's texts the model cannot read."""
    texts = {"prompt": task.user_prompt, "instruction": task.instruction, "question": task.question}
    for field, text in texts.items():
        if text is not None and is_unread(text, knows):
            yield _UNREAD.format(field=field, what=_WHAT_THEN[field])
    if answers is not None and task.question is not None and answers.reads_only_the_start_of(
            task.question, task.language):
        yield f"Only the first {ASKED_AT_MOST} tokens of the question were read: the embedded demo model reads no more."


def _text(answers: Answers, task: Task) -> str:
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
