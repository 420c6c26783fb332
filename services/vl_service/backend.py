"""What every vision-language engine is: it looks at a picture once and answers a list of tasks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from contracts.describe import Language, TaskKind
from contracts.models import VLModelInfo
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import Profile


class DeadlineExceededError(Exception):
    """The answer was not ready in time, or nobody waits for it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When to stop (`time.monotonic` seconds), and the caller's way to stop sooner."""

    at: float
    canceled: Event = field(default_factory=Event)

    def passed(self) -> bool:
        """Whether work on the answer should stop now."""
        return self.canceled.is_set() or time.monotonic() >= self.at

    def check(self) -> None:
        """Raise `DeadlineExceededError` once the deadline has passed."""
        if self.passed():
            raise DeadlineExceededError("the answer was not ready in time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to say, resolved: the language is one that the profile can be written in."""

    kind: TaskKind
    language: Language
    profile: Profile
    seed: int
    max_new_tokens: int
    question: str | None = None
    user_prompt: str | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend says to one task; `confidence` in 0..1 where it measures one."""

    text: str
    confidence: float | None = None
    warnings: tuple[str, ...] = ()
    """What of the task was not understood or not read, in sentences for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Answers in the order of the tasks, and measured picture facts where the engine has any."""

    answers: Sequence[Answer]
    facts: Mapping[str, str]


class Backend(Protocol):
    """A loaded vision-language model. Called from one thread only, one call at a time."""

    @property
    def info(self) -> VLModelInfo:
        """Which model this is and what computes it."""
        ...

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """Answer every task about the picture; without one, prompt tasks work from their words alone.

        Equal arguments give equal answers. Raises `DeadlineExceededError` soon after the deadline passes.
        """
        ...
