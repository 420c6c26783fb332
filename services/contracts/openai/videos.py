"""The OpenAI Videos API's types, as its SDK reads them: `/v1/videos`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contracts.describe import MAX_IMAGE_BASE64_CHARS, Text
from contracts.errors import Problem
from contracts.jobs import GenerateOptions
from contracts.models import FrozenModel
from contracts.openai.pages import Item, Page

VideoStatus = Literal["queued", "in_progress", "completed", "failed"]


class InputReference(FrozenModel):
    """The picture that guides the video: by address (or data URI), or as a file uploaded before."""

    image_url: str | None = Field(default=None, max_length=MAX_IMAGE_BASE64_CHARS)
    file_id: str | None = Field(default=None, max_length=64)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give either `image_url` or `file_id`")
        return self


class VideoOptions(GenerateOptions):
    """What `POST /v1/videos` takes beside the picture: OpenAI's fields, and every field of `POST /generate`."""

    model_config = ConfigDict(validate_default=True, json_schema_extra={"required": ["prompt"]})

    @field_validator("prompt")
    @classmethod
    def _is_there(cls, prompt: str | None) -> str | None:
        if prompt is None:
            raise ValueError("required")
        return prompt


class VideoCreate(VideoOptions):
    """JSON body of `POST /v1/videos`; a multipart body has `input_reference` as a file."""

    input_reference: InputReference | None = None


class VideoRemix(FrozenModel):
    """Body of `POST /v1/videos/{id}/remix`."""

    prompt: Text = Field(description="What should happen instead.")


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Video(Item):
    """A job in OpenAI's words; its `id` is the job's."""

    model_config = ConfigDict(extra="forbid")

    object: Literal["video"] = "video"
    status: VideoStatus
    progress: int = Field(ge=0, le=100, description="Percent.")
    created_at: int = Field(description="Seconds since the epoch, like all times here.")
    completed_at: int | None = None
    expires_at: int | None = None
    model: str
    prompt: str | None = Field(default=None, description="As it was sent; `GET /v1/jobs/{id}` has what it became.")
    seconds: str
    size: str
    remixed_from_video_id: str | None = None
    error: VideoError | None = None


class VideoPage(Page[Video]):
    """A page of videos; pass `last_id` as `after` for the next one."""


class VideoDeleted(BaseModel):
    """The video, its job and its files are gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class OpenAIErrorDetail(BaseModel):
    """What went wrong, in the form that OpenAI's SDKs raise as typed errors."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """The error body of the OpenAI routes, and of those only."""

    error: OpenAIErrorDetail


class SharedProblem(Problem):
    """A problem of the routes that both kinds of clients call: `error` is what OpenAI's SDKs read of it."""

    error: OpenAIErrorDetail
