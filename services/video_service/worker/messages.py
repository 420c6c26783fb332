"""What the HTTP process and the worker process say to each other: one JSON object a line, over a socket pair."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from contracts.errors import Problem
from contracts.models import FrozenModel
from contracts.videos import RenderResult, RenderStage
from video_service.catalog import ModelSource
from video_service.settings import VideoSettings

MAX_MESSAGE_BYTES = 1 << 20
"""Bound of one line. Requests travel as files: only their paths go through the socket."""


class StartCommand(FrozenModel):
    """First line to the worker: load this model."""

    kind: Literal["start"] = "start"
    settings: VideoSettings
    source: ModelSource


class RenderCommand(FrozenModel):
    """Render the request in `request_path` into `output_path`."""

    kind: Literal["render"] = "render"
    render_id: str
    request_path: Path
    output_path: Path
    request_id: str | None = None
    traceparent: str | None = None


class CancelCommand(FrozenModel):
    """Stop that render at its next report."""

    kind: Literal["cancel"] = "cancel"
    render_id: str


class Loaded(FrozenModel):
    """The model is in memory; renders are welcome."""

    kind: Literal["loaded"] = "loaded"
    seconds: float


class LoadFailed(FrozenModel):
    """The model cannot be loaded; the worker ends after saying so."""

    kind: Literal["load_failed"] = "load_failed"
    reason: str
    may_pass: bool = Field(description="The next attempt may succeed with nothing changed.")


class Progress(FrozenModel):
    """One report of the running render; units of `done` and `total` as in `video_service.progress.Report`."""

    kind: Literal["progress"] = "progress"
    render_id: str
    stage: RenderStage
    done: int
    total: int


class Completed(FrozenModel):
    """The MP4 is in place."""

    kind: Literal["completed"] = "completed"
    render_id: str
    result: RenderResult
    gpu_memory: dict[str, dict[str, int]] = Field(default_factory=dict, description="Bytes by kind, by device.")


class Failed(FrozenModel):
    """The render failed and nothing of it is left; `fatal` says that the worker ends too."""

    kind: Literal["failed"] = "failed"
    render_id: str
    problem: Problem
    fatal: bool = False


class Canceled(FrozenModel):
    """The render stopped because it was asked to."""

    kind: Literal["canceled"] = "canceled"
    render_id: str


Command = StartCommand | RenderCommand | CancelCommand
WorkerMessage = Loaded | LoadFailed | Progress | Completed | Failed | Canceled
Outcome = Completed | Failed | Canceled

_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="kind")])
_MESSAGE: TypeAdapter[WorkerMessage] = TypeAdapter(Annotated[WorkerMessage, Field(discriminator="kind")])


def to_line(message: Command | WorkerMessage) -> bytes:
    """The message as one line of JSON. The internal token stays in the HTTP process."""
    return message.model_dump_json(exclude={"settings": {"internal_token"}}).encode() + b"\n"


def read_command(line: bytes) -> Command:
    """Raises `pydantic.ValidationError` for a line that is no command."""
    return _COMMAND.validate_json(line)


def read_message(line: bytes) -> WorkerMessage:
    """Raises `pydantic.ValidationError` for a line that is no message."""
    return _MESSAGE.validate_json(line)
