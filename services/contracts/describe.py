"""Internal wire to the vision-language service: `POST /v1/describe`."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from contracts.wire import FrozenModel, ImageBytes, ImageRequest

MAX_IMAGE_BASE64_CHARS = 28_000_000  # of public bodies: 20 MiB of bytes in base64
MAX_TEXT_CHARS = 4000
MAX_TEMPLATE_CHARS = 64
"""Of a template's name."""

Language = Literal["en", "zh"]
TaskKind = Literal["caption", "prompt", "edit_suggestion", "question", "verdict"]
Verdict = Literal["ok", "review", "refuse"]
"""What the policy says of a picture and the words with it; `review`: a person should look."""
MAX_TASKS = 8
CacheResult = Literal["memory", "disk", "miss"]
"""Where what was seen of a picture was found, or that it was looked at anew."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "There are only blanks: write words, or leave the field out")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_not_blank)]


class DescribeTask(FrozenModel):
    """One thing to say about the picture."""

    kind: TaskKind
    question: Text | None = Field(default=None, description="Required for `question`, refused elsewhere.")
    user_prompt: Text | None = Field(
        default=None, description="For `prompt`: the user's own words, kept and enhanced by what is seen. For "
        "`verdict`: those to be judged with the picture."
    )
    instruction: Text | None = Field(
        default=None, description="For `prompt`: how to write, such as 'dramatic'. For `verdict`: judged, too.")
    template: str | None = Field(
        default=None, min_length=1, max_length=MAX_TEMPLATE_CHARS,
        description="For `prompt`: a pattern of the library by name, such as `product turntable`.")

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        if (self.kind == "question") != (self.question is not None):
            raise ValueError("a question task needs `question`, and no other task takes it")
        if self.kind not in ("prompt", "verdict") and (self.user_prompt, self.instruction) != (None, None):
            raise ValueError("`user_prompt` and `instruction` go with a prompt or verdict task only")
        if self.kind != "prompt" and self.template is not None:
            raise ValueError("`template` goes with a prompt task only")
        return self


class DescribeRequest(ImageRequest):
    """A picture (or none, to enhance words alone) and up to 8 tasks answered in order, each with a verdict at most."""

    image: ImageBytes | None = None
    tasks: list[DescribeTask] = Field(min_length=1, max_length=2 * MAX_TASKS)
    language: Language = "en"
    profile: str = Field(default="embedded", max_length=64, description="Prompt style of the video model.")
    seed: int = Field(default=0, ge=0, lt=2**63)
    max_new_tokens: int = Field(default=256, ge=1, le=1024, description="Per task.")
    max_pixels: int | None = Field(
        default=None, ge=256, le=100_000_000, description="That are looked at, at most; the service has a bound, too.")

    @field_validator("tasks")
    @classmethod
    def _are_few(cls, tasks: list[DescribeTask]) -> list[DescribeTask]:
        if sum(task.kind != "verdict" for task in tasks) > MAX_TASKS:
            raise ValueError(f"at most {MAX_TASKS} tasks, verdicts not counted")
        return tasks


class TaskResult(FrozenModel):
    """The answer to one task."""

    kind: TaskKind
    text: str = Field(description="For `edit_suggestion`, one suggestion a line; for `verdict`, the reason.")
    verdict: Verdict | None = Field(
        default=None, exclude_if=lambda value: value is None, description="Of a `verdict`, by the service's policy.")
    confidence: float | None = Field(default=None, ge=0, le=1, description="Of what the text names, if measured.")
    warnings: list[str] = Field(
        default_factory=list, exclude_if=lambda warnings: not warnings,  # left out so that earlier gateways read it
        description="What of the task was not understood or not read, such as a language that the model does not know. "
        "Absent where there is nothing to say.")
    negative_prompt: str | None = Field(
        default=None, exclude_if=lambda value: value is None,
        description="Of a prompt for a video model that takes one: its profile's, and what should not appear.")


class DescribeResponse(BaseModel):
    """Answers in the order of the tasks."""

    model_config = ConfigDict(extra="forbid")

    results: list[TaskResult]
    model: str
    revision: str
    engine: str
    seconds: float = Field(ge=0)
    facts: dict[str, str] = Field(default_factory=dict, description="Measured picture facts, where the engine has any.")
    cache: CacheResult | None = Field(
        default=None, exclude_if=lambda cache: cache is None,  # left out so that earlier gateways read it
        description="Where a Qwen checkpoint found what it sees in the picture; `miss`: it looked.")
