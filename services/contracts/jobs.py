"""The public wire: `POST /generate` and the jobs it makes."""

from datetime import datetime
from operator import not_
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.describe import MAX_TEMPLATE_CHARS, Language, Text
from contracts.errors import Problem
from contracts.models import MAX_LORAS, LoraRef, Sampler
from contracts.wire import FrozenModel

JobState = Literal["queued", "running", "completed", "failed", "canceled", "expired"]
JobStage = Literal["describing", "rendering", "saving"]
Enhance = Literal["auto", "always", "never"]
Awaited = Literal["vl_service", "video_service", "database", "storage"]
HIGHEST_PRIORITY, LOWEST_PRIORITY = 1, 100
"""The smaller, the earlier."""
DEFAULT_PRIORITY = 10
"""Always set: the engine runs a job without a priority before all others."""
TERMINAL_JOB_STATES: frozenset[JobState] = frozenset({"completed", "failed", "canceled", "expired"})

Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
                     Field(max_length=16)]


class GenerateOptions(FrozenModel):
    """Everything a caller may set beside the picture; `None` asks for the model's default."""

    prompt: Text | None = Field(default=None, description="What should happen. Left out: written from the picture.")
    instruction: Text | None = Field(default=None, description="How the prompt should be written.")
    template: str | None = Field(
        default=None, min_length=1, max_length=MAX_TEMPLATE_CHARS,
        description="A pattern that the prompt follows, by its name in the library, such as `product turntable`.")
    conversation: str | None = Field(
        default=None, min_length=1, max_length=64,
        description="Instead of `prompt`: the last one of this dialogue of `POST /v1/describe`, with its last picture "
        "where none is sent, and in size, length, sampling and seed as its last video where nothing else is asked.",
    )
    extend_from: str | None = Field(
        default=None, min_length=1, max_length=64,
        description="Instead of a picture: a completed job of yours, whose last frame this video goes on from. The MP4 "
        "is that video and then the new frames, of which `seconds` or `num_frames` counts the last frame too. Prompt, "
        "model and sampling are that job's where nothing else is asked, size and rate always; the seed is drawn anew.",
    )
    enhance: Enhance = Field(default="auto", description="Whether the prompt is enhanced by what is seen.")
    negative_prompt: Text | None = None
    model: str | None = Field(default=None, max_length=200)
    size: str | None = Field(default=None, pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$", description="WIDTHxHEIGHT.")
    width: int | None = Field(default=None, ge=1, le=100_000, description="Pixels; goes with `height`.")
    height: int | None = Field(default=None, ge=1, le=100_000, description="Pixels; goes with `width`.")
    seconds: float | None = Field(default=None, gt=0, le=60, allow_inf_nan=False, description="Instead of num_frames.")
    num_frames: int | None = Field(default=None, ge=1, le=100_000, description="As the model's `num_frames` says.")
    fps: int | None = Field(default=None, ge=1, le=60)
    steps: int | None = Field(default=None, ge=1, le=100, description="Denoising steps.")
    sampler: Sampler | None = None
    guidance_scale: float | None = Field(default=None, ge=1.0, le=20.0, allow_inf_nan=False)
    guidance_scale_2: float | None = Field(
        default=None, ge=1.0, le=20.0, allow_inf_nan=False,
        description="Of models with two experts: the guidance of the one for low noise.",
    )
    loras: list[LoraRef] = Field(
        default_factory=list, max_length=MAX_LORAS,
        description="Added to the model for this video alone, of those that `GET /v1/models` names; in a form as JSON.",
    )
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="Left out: drawn, and shown on the job.")
    language: Language = "en"
    profile: str | None = Field(default=None, max_length=64, description="Prompt style; default: the model's own.")
    priority: int | None = Field(
        default=None, ge=HIGHEST_PRIORITY, le=LOWEST_PRIORITY,
        description="The smaller, the earlier; 10 where none is named. A key has its bound.",
    )
    preview: bool = Field(
        default=False, exclude_if=not_,  # left out so that an earlier gateway reads the job
        description="Have `progress.preview` show what is becoming of it, while it is denoised.")
    webhook_url: str | None = Field(
        default=None, min_length=1, max_length=2048, description="Told of the job's end, signed as Standard Webhooks."
    )
    metadata: Metadata = Field(default_factory=dict, description="Yours; returned unchanged.")


class GenerateRequest(GenerateOptions):
    """JSON body of `POST /generate`; a multipart body has the same fields, with `image` as a file."""

    image: str | None = Field(  # bounded by its bytes, as a file is
        default=None,
        description="Data URI or bare base64 of a still picture (PNG, JPEG, WebP, AVIF, HEIC, GIF, BMP, TIFF); or an "
        "https URL, where this server fetches from its host.",
    )
    last_image: str | None = Field(
        default=None,
        description="How the video ends, in the forms of `image`; of models with the task `flf2v`.",
    )
    file_id: str | None = Field(
        default=None, min_length=1, max_length=64, description="Instead of `image`: a picture of `POST /v1/files`."
    )


class JobUrls(BaseModel):
    """Where to go next."""

    self: str
    events: str
    cancel: str
    content: str | None = Field(default=None, description="Set once the job is completed.")
    link: str | None = Field(
        default=None, description="Opens the video without a key, for a while; where the server makes such links."
    )


class JobProgress(BaseModel):
    """How far a job is."""

    stage: JobStage | None = None
    queue_position: int | None = Field(default=None, ge=0)
    step: int = 0
    num_steps: int = 0
    fraction: float = Field(default=0.0, ge=0, le=1)
    eta_s: float | None = None
    waiting_for: Awaited | None = Field(
        default=None, description="What the job needs and cannot have now; once that is back it goes on by itself."
    )
    waiting_detail: str | None = Field(default=None, description="What is the matter with it.")
    preview: str | None = Field(
        default=None, description="Where `preview` was asked for, and on single jobs alone: a small JPEG of what the "
        "clip's middle is becoming, as a data URI of at most 11 kB. Its colours are about right, its edges are not.")


class EffectiveParameters(BaseModel):
    """What was, or will be, really used."""

    model: str
    revision: str | None = None
    engine: str | None = None
    engine_reason: str | None = Field(default=None, description="Why that engine, in words.")
    profile: str
    width: int
    height: int
    num_frames: int
    fps: int
    steps: int | None = None
    sampler: Sampler | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    loras: list[LoraRef] = Field(default_factory=list)
    seed: int
    language: Language


class VideoFile(BaseModel):
    """The finished MP4."""

    num_bytes: int
    sha256: str
    width: int
    height: int
    num_frames: int
    fps: int
    duration_s: float


class WebhookAttempt(BaseModel):
    """One call of the webhook's receiver."""

    at: datetime
    seconds: float
    status: int | None = Field(default=None, description="What the receiver answered, if it did.")
    error: str | None = Field(default=None, description="Why there was no answer.")


class WebhookDelivery(BaseModel):
    """The webhook of a job: `waiting` for its end, `sending` until it is taken, tried for a day at most."""

    url: str
    state: Literal["waiting", "sending", "delivered", "refused", "given_up"]
    attempts: list[WebhookAttempt] = Field(default_factory=list)
    next_try_at: datetime | None = None


class Job(BaseModel):
    """One request and all that became of it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["job"] = "job"
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expired_at: datetime | None = Field(default=None, description="Since then its files are gone.")
    progress: JobProgress = Field(default_factory=JobProgress)
    original_prompt: str | None = None
    actual_prompt: str | None = None
    caption: str | None = None
    priority: int = Field(default=10, description="The smaller, the earlier.")
    parameters: EffectiveParameters
    warnings: list[str] = Field(default_factory=list)
    timings: dict[str, float] = Field(default_factory=dict, description="Seconds by stage.")
    video: VideoFile | None = None
    error: Problem | None = None
    metadata: Metadata = Field(default_factory=dict)
    webhook: WebhookDelivery | None = Field(default=None, description="Shown on single jobs, not on pages of them.")
    urls: JobUrls


class Provenance(BaseModel):
    """What a video's own C2PA manifest says of how it was made, and whether the file is as it was signed."""

    state: Literal["valid", "invalid", "none"] = Field(
        description="`invalid`: the file was changed after it was signed; `none`: it carries no manifest.")
    problems: list[str] = Field(default_factory=list, description="C2PA's codes of what does not hold.")
    signed_by: str | None = Field(default=None, description="The organisation in the signer's certificate.")
    self_made: bool = Field(default=False, description="Whether a server made that certificate itself.")
    source_type: str | None = Field(default=None, description="IPTC's digital source type.")
    made_at: datetime | None = None
    product: str | None = None
    model: str | None = None
    revision: str | None = None
    input_sha256: str | None = Field(default=None, description="Of the picture that was animated, in hex.")
    prompt: str | None = Field(default=None, description="Only where the server was told to write it.")


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    data: list[Job]
    next_cursor: str | None = Field(default=None, description="Pass as `cursor` for the next page.")
