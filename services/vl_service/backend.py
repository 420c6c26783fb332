"""What every vision-language backend is: it looks at an image once and answers a list of tasks."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from contracts.chat import ChatEnd, ChatOptions, Finish, Turn
from contracts.describe import CacheResult, DescribeResponse, Language, TaskKind, Verdict
from contracts.models import VLModelInfo
from contracts.refusal import Refusal
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import Profile

LATE = "The model did not answer in time; ask for fewer tasks or tokens, or raise VL_DEADLINE_S."


class DeadlineExceededError(Refusal):
    """The answer was not ready in time, or nobody waits for it any more."""

    status, code, title = 504, "deadline_exceeded", "No answer in time"


class CannotReplyError(Refusal):
    """The model cannot continue this dialogue, or not in this way; the message says what it can do."""

    status, code, title = 422, "cannot_reply", "The model cannot reply to this"


class CheckpointError(Exception):
    """The checkpoint cannot be used, and trying again changes nothing; the message says why."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When to stop (`time.monotonic` seconds), and the caller's way to stop sooner."""

    at: float
    is_canceled: Callable[[], bool] = _never

    def passed(self) -> bool:
        """Whether work on the answer should stop now."""
        return time.monotonic() >= self.at or self.is_canceled()

    def remaining_s(self) -> float:
        """Seconds until then; negative when it has passed."""
        return self.at - time.monotonic()

    def check(self) -> None:
        """Raise `DeadlineExceededError` once the deadline has passed."""
        if self.passed():
            raise DeadlineExceededError(LATE)


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
    template: str | None = None
    """The words of one."""

    @property
    def wishes(self) -> str:
        """All that the user says of the video."""
        return " ".join(filter(None, [self.user_prompt, self.instruction, self.template]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend says to one task; `confidence` in 0..1 where it measures one."""

    text: str
    confidence: float | None = None
    warnings: tuple[str, ...] = ()
    """What of the task was not understood or not read, in sentences for the user."""
    avoid: tuple[str, ...] = ()
    """What should not be seen in the video."""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Answers in the order of the tasks, and measured picture facts where the engine has any."""

    answers: Sequence[Answer]
    facts: Mapping[str, str]
    cache: CacheResult | None = None
    """Of what was seen in the picture, where the backend keeps that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some of a reply, or none and its end. Tokens are counted from the beginning, pictures with their vision tokens.
    """

    text: str = ""
    prompt_tokens: int
    completion_tokens: int
    finish: Finish | None = None
    """Set on the last piece."""
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Backend(Protocol):
    """A loaded vision-language model."""

    @property
    def concurrent(self) -> bool:
        """Whether calls may come from several threads at one time; else one comes when the one before is answered."""
        ...

    @property
    def info(self) -> VLModelInfo:
        """Which model this is and what computes it."""
        ...

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """Answer every task about the picture; without one, prompt tasks work from their words alone.

        Equal arguments give equal answers. Raises `DeadlineExceededError` soon after the deadline passes.
        """
        ...

    def chat(
        self, turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions, deadline: Deadline
    ) -> Iterator[Piece]:
        """Reply to the last turn, piece by piece as it is written; `images` stand in the turns in their order.

        Every call reads its dialogue from the beginning. Closed early, it stops within a token.

        Raises:
            CannotReplyError: with the first piece at the latest.
            DeadlineExceededError: soon after the deadline passes.
        """
        ...


@runtime_checkable
class FeatureBackend(Protocol):
    """A loaded vision tower."""

    @property
    def concurrent(self) -> bool:
        """As `Backend.concurrent`."""
        ...

    @property
    def info(self) -> VLModelInfo:
        """Which model this is and what computes it."""
        ...

    def features(self, picture: DecodedImage, deadline: Deadline) -> tuple[bytes, CacheResult]:
        """What it sees, as a safetensors file; see `vl_service.qwen.vision.features`."""
        ...


class WrongRoleError(Refusal):
    """This service has another part of the model; the message says which. What asks it may be set right."""

    status, code, title = 503, "wrong_role", "Another part of the model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One call as it goes to the worker process; times are of `time.monotonic`, one clock for all of a machine."""

    image: bytes | None
    tasks: tuple[Task, ...]
    started: float
    due: float
    max_pixels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWork:
    """A dialogue as it goes to the worker process; `due` is of `time.monotonic`. Its progress is pieces of text."""

    turns: tuple[Turn, ...]
    options: ChatOptions
    images: tuple[bytes, ...]
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The end of a reply, what the model is now, and the seconds that it worked."""

    end: ChatEnd
    info: VLModelInfo
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What comes back: the answer, what the model is now, and the seconds that it worked."""

    response: DescribeResponse
    info: VLModelInfo
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One picture to see, as it goes to the worker process; `due` as in `Work`."""

    image: bytes
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What comes back: a safetensors file, where it was found, what the model is now, the seconds that it worked."""

    body: bytes
    cache: CacheResult
    info: VLModelInfo
    seconds: float
