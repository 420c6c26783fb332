"""What a deployment can run: `/v1/models` on every service."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Sampler = Literal["euler", "unipc", "ode", "sde"]
VideoTask = Literal["t2v", "i2v"]


class FrozenModel(BaseModel):
    """Immutable wire type that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class IntRange(FrozenModel):
    """Closed range of integers with its default."""

    minimum: int
    maximum: int
    default: int


class FloatRange(FrozenModel):
    """Closed range of numbers with its default."""

    minimum: float
    maximum: float
    default: float


class VideoModelInfo(FrozenModel):
    """One video model and every bound that a request to it must respect."""

    id: str
    kind: Literal["video"] = "video"
    revision: str = Field(
        description="Content hash or hub revision of the weights; with a LoRA in them, `+lora-HASH@SCALE` follows."
    )
    engine: str = Field(description="What computes it, such as `torch-cpu`, `torch-cuda` or `onnx-cpu`.")
    engine_reason: str = Field(default="", description="Why that engine, in words.")
    dtype: str
    profile: str = Field(description="Prompt style that this model was trained on; one of `vl_service.prompts`.")
    tasks: list[VideoTask]
    sizes: list[str] = Field(description="Recommended WIDTHxHEIGHT, the default first.")
    size_multiple: int = Field(description="Width and height must be multiples of this many pixels.")
    min_side: int = Field(description="Smallest side in pixels.")
    max_pixels: int = Field(description="Largest width x height in pixels.")
    clips: list[str] = Field(
        default_factory=list,
        description="WIDTHxHEIGHTxFRAMES: where an engine is forced, the only ones rendered. Empty: all within bounds.",
    )
    num_frames: IntRange = Field(description="Frames; the temporal VAE takes 4k+1 only.")
    fps: IntRange
    steps: IntRange
    guidance_scale: FloatRange
    samplers: list[Sampler] = Field(description="Default first.")


class VLModelInfo(FrozenModel):
    """One vision-language model."""

    id: str
    kind: Literal["vl"] = "vl"
    revision: str
    engine: str = Field(description="`embedded-cpu`, `transformers-cpu` or `transformers-cuda`.")
    vision_engine: str = Field(
        default="", description="What computes a Qwen checkpoint's vision tower, such as `torch-cpu` or `onnx-cpu`."
    )
    vision_engine_reason: str = Field(default="", description="Why that, in words.")
    dtype: str
    tasks: list[str]
    languages: list[str]
    profiles: list[str]


class VideoModelList(FrozenModel):
    """Answer of `GET /v1/models` of the video service."""

    data: list[VideoModelInfo]


class VLModelList(FrozenModel):
    """Answer of `GET /v1/models` of the vision-language service."""

    data: list[VLModelInfo]


class ModelList(FrozenModel):
    """Answer of `GET /v1/models` of the gateway."""

    data: list[VideoModelInfo | VLModelInfo]


class Health(FrozenModel):
    """Answer of `/livez` and `/readyz`; `ready` false goes with status 503 and the reasons."""

    ready: bool
    stuck: bool = Field(
        default=False,
        description="Waiting will not make it ready: what the reasons name has to be changed. False while loading.",
    )
    reasons: list[str] = Field(default_factory=list)
    details: dict[str, str] = Field(default_factory=dict)
