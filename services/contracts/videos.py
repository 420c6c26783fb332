"""Internal wire to the video service: `PUT /v1/videos/{id}` and its status, events and content."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from contracts.describe import MAX_TEXT_CHARS
from contracts.errors import Problem
from contracts.models import MAX_LORAS, LoraRef, Sampler
from contracts.wire import MAX_BODY_BYTES, FrozenModel, ImageBytes, ImageRequest

MAX_CLIP_BYTES = 64_000_000
MAX_VIDEO_BODY_BYTES = MAX_BODY_BYTES + MAX_CLIP_BYTES
MAX_PREVIEW_BYTES = 8192
RENDER_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"

RenderState = Literal["queued", "running", "completed", "failed", "canceled"]
RenderFile = Literal["video", "thumbnail", "spritesheet", "last_frame"]
RenderStage = Literal["text", "condition", "denoise", "decode", "write"]
TERMINAL_RENDER_STATES: frozenset[RenderState] = frozenset({"completed", "failed", "canceled"})


class VideoRequest(ImageRequest):
    """A render in full: two equal bodies give equal latents on the same machine, model revision and engine.

    `None` asks for the model's default; the effective value is in the status.
    """

    prompt: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)
    negative_prompt: str = Field(default="", max_length=MAX_TEXT_CHARS)
    image: ImageBytes | None = Field(
        default=None, description="The first frame; scaled and centre-cropped to width x height.")
    last_image: ImageBytes | None = Field(
        default=None, description="The last frame, in the same form; of models that animate between two pictures.")
    extends: Annotated[bytes, Field(max_length=MAX_CLIP_BYTES)] | None = Field(
        default=None,
        description="An MP4 of the same size and rate whose last frame is `image`: the video is it and then the new "
        "frames, but for the first of those.")
    model: str | None = Field(default=None, max_length=200)
    width: int = Field(ge=64, le=4096, description="Pixels.")
    height: int = Field(ge=64, le=4096, description="Pixels.")
    num_frames: int = Field(ge=1, le=1001)
    fps: int = Field(ge=1, le=60)
    steps: int | None = Field(default=None, ge=1, le=100)
    sampler: Sampler | None = None
    guidance_scale: float | None = Field(default=None, ge=1.0, le=20.0, allow_inf_nan=False)
    guidance_scale_2: float | None = Field(default=None, ge=1.0, le=20.0, allow_inf_nan=False)
    loras: list[LoraRef] = Field(default_factory=list, max_length=MAX_LORAS)
    seed: int = Field(ge=0, lt=2**63)
    preview: bool = Field(default=False, description="Have the status show small pictures of what is being denoised.")


class RenderResult(FrozenModel):
    """What a completed render made, and every parameter that was in force. Fields of a newer service are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    width: int
    height: int
    num_frames: int = Field(description="Of the whole file.")
    fps: int
    steps: int
    sampler: Sampler
    guidance_scale: float
    guidance_scale_2: float | None = None
    seed: int
    model: str
    revision: str
    engine: str
    engine_reason: str = Field(default="", description="Why that engine, in words.")
    dtype: str
    num_bytes: int
    sha256: str
    timings: dict[str, float] = Field(description="Seconds by stage, and `total`.")
    batch: int = Field(default=1, description="Clips that were denoised as one, for which the timings are.")
    warnings: list[str] = Field(default_factory=list, description="What was not done as asked, a sentence each.")


class RenderStatus(FrozenModel):
    """Where a render stands."""

    id: str = Field(pattern=RENDER_ID_PATTERN)
    state: RenderState
    stage: RenderStage | None = Field(default=None, description="Set while running.")
    queue_position: int | None = Field(default=None, ge=0, description="Renders before this one, while queued.")
    step: int = Field(default=0, ge=0, description="Finished denoising steps.")
    num_steps: int = Field(default=0, ge=0)
    progress: float = Field(default=0.0, ge=0, le=1)
    eta_s: float | None = Field(default=None, ge=0, description="Estimated seconds to the end, once measured.")
    preview: Annotated[str, Field(max_length=4 * -(-MAX_PREVIEW_BYTES // 3))] | None = Field(
        default=None, exclude_if=lambda value: value is None,  # left out so that earlier gateways read it
        description="A JPEG, in base64, of what the clip's middle is becoming; while running, where the request asks.")
    error: Problem | None = None
    result: RenderResult | None = None
