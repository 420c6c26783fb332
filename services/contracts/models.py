"""What a deployment can run: `/v1/models` on every service."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from contracts.wire import FloatRange, FrameRange, FrozenModel, IntRange

# Open, because a family may bring its own; which ones a model takes is in its spec.
Sampler = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
VideoTask = Literal["t2v", "i2v", "flf2v"]
"""From words, from a picture, from a first and a last picture."""


LoraId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
MAX_LORAS = 8


class LoraRef(FrozenModel):
    """A LoRA that a render is to have, and how much of it."""

    id: LoraId = Field(description="Of one of the model's `loras`: a file's name without `.safetensors`.")
    scale: float = Field(default=1.0, ge=-4.0, le=4.0, allow_inf_nan=False)


class LoraInfo(FrozenModel):
    """A file of the allowed folder."""

    id: LoraId
    modified_at: float = Field(description="Seconds since the epoch.")
    problem: str = Field(default="", description="Why it does not go with this model, once that is known.")


class ModelSpec(FrozenModel):
    """What one video model can do: every bound that a request to it must respect, and every default.

    Its family says so. Fields of a newer service are ignored.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    kind: Literal["video"] = "video"
    family: str = Field(default="", description="Kind of model, such as `wan2.1`.")
    batches: bool = Field(default=False, description="Whether clips of one size, length and sampling go as one.")
    profile: str = Field(description="Prompt style that this model was trained on; one of `vl_service.prompts`.")
    tasks: list[VideoTask]
    sizes: list[str] = Field(description="Recommended WIDTHxHEIGHT, the default first.")
    size_multiple: int = Field(description="Width and height must be multiples of this many pixels.")
    min_side: int = Field(description="Smallest side in pixels.")
    max_pixels: int = Field(description="Largest width x height in pixels.")
    num_frames: FrameRange
    fps: IntRange
    steps: IntRange
    guidance_scale: FloatRange
    guidance_scale_2: FloatRange | None = Field(
        default=None, description="Of the expert for low noise, where there is one; `guidance_scale` is the other's."
    )
    samplers: list[Sampler] = Field(description="Default first.")
    sampler_steps: dict[Sampler, IntRange] = Field(
        default_factory=dict, description="Steps of those samplers that have bounds of their own."
    )
    unguided_samplers: list[Sampler] = Field(default_factory=list, description="Those that take no guidance.")
    text_tokens: int = Field(default=0, description="Prompt tokens that are read; 0 where that is not known.")


class DeviceInfo(FrozenModel):
    """What a model is computed on, as its worker last saw it."""

    name: str = Field(description="As its driver says it, such as `NVIDIA H200`; `cpu` for the processor.")
    memory_bytes: int | None = Field(default=None, description="All that it has.")
    free_bytes: int | None = Field(default=None, description="That no process holds, at the last look.")


class VideoModelInfo(ModelSpec):
    """One video model as it is deployed."""

    state: Literal["loaded", "loadable"] = Field(
        default="loaded", description="`loadable`: the first render that asks for it waits until it is loaded."
    )
    memory_bytes: int | None = Field(
        default=None, description="Of its weights, as they are computed with; null where that is not known yet."
    )

    revision: str = Field(
        description="Content hash or hub revision of the weights; with a LoRA in them, `+lora-HASH@SCALE` follows."
    )
    engine: str = Field(description="What computes it, such as `torch-cpu`, `torch-cuda` or `onnx-cpu`.")
    engine_reason: str = Field(default="", description="Why that engine, in words.")
    dtype: str
    devices: list[DeviceInfo] = Field(
        default_factory=list, description="What it is computed on; empty where that is not known.")
    loras: list[LoraInfo] = Field(default_factory=list, description="What a request's `loras` may name.")
    clips: list[str] = Field(
        default_factory=list,
        description="WIDTHxHEIGHTxFRAMES: where an engine is forced, the only ones rendered. Empty: all within bounds.",
    )


class TemplateInfo(FrozenModel):
    """A pattern of the library that a prompt may follow."""

    name: str = Field(description="What a request says as `template`.")
    title: dict[str, str] = Field(
        default_factory=dict, description="By language, what people call it, where that is not its name.")


class VLModelInfo(FrozenModel):
    """One vision-language model."""

    id: str
    kind: Literal["vl"] = "vl"
    revision: str
    engine: str = Field(description="`embedded-cpu`, `transformers-cpu` or `transformers-cuda`.")
    engine_reason: str = Field(default="", description="In which form a Qwen checkpoint writes, and why, in words.")
    vision_engine: str = Field(
        default="", description="What computes a Qwen checkpoint's vision tower, such as `torch-cpu` or `onnx-cpu`."
    )
    vision_engine_reason: str = Field(default="", description="Why that, in words.")
    dtype: str
    quant: str | None = Field(
        default=None, exclude_if=lambda value: value is None,  # left out so that earlier gateways read it
        description="In what the language model's weights are kept, where VL_QUANT says so.")
    memory_bytes: int | None = Field(
        default=None, exclude_if=lambda value: value is None, description="Of a Qwen checkpoint's weights.")
    at_once: int | None = Field(
        default=None, ge=1, exclude_if=lambda value: value is None,
        description="Calls that it answers at one time; more of them wait.")
    wording: str | None = Field(
        default=None, exclude_if=lambda value: value is None,
        description="A hash of the prompt profiles and the policy: with others it writes other texts.")
    tasks: list[str]
    languages: list[str]
    profiles: list[str]
    templates: list[TemplateInfo] = Field(
        default_factory=list, exclude_if=lambda templates: not templates,
        description="What a request's `template` may name. Absent where prompts follow none.")
    devices: list[DeviceInfo] = Field(
        default_factory=list, exclude_if=lambda devices: not devices,
        description="What it is computed on. Absent where that is not known, as of another server's model.")


class AbsentModel(FrozenModel):
    """A video model that was asked for and that nothing can be rendered with."""

    id: str
    kind: Literal["video"] = "video"
    state: Literal["absent"] = "absent"
    reason: str = Field(description="Why, and what to do.")
    memory_bytes: int | None = Field(default=None, description="As a loaded model's, where that is known.")


class VideoModelList(FrozenModel):
    """Answer of `GET /v1/models` of the video service; the default is the first of `data`."""

    data: list[VideoModelInfo]
    absent: list[AbsentModel] = Field(default_factory=list)


class VLModelList(FrozenModel):
    """Answer of `GET /v1/models` of the vision-language service."""

    data: list[VLModelInfo]


class _Listed(FrozenModel):
    """What OpenAI's SDKs read of a model."""

    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since the epoch: since when this server offers it.")
    owned_by: str = "stillmotion"


class ListedVideoModel(VideoModelInfo, _Listed):
    """A video model as the gateway lists it."""


class ListedVLModel(VLModelInfo, _Listed):
    """A vision-language model as the gateway lists it."""


class ListedAbsentModel(AbsentModel, _Listed):
    """A video model of which the gateway says why it is absent."""


class ModelList(FrozenModel):
    """Answer of `GET /v1/models` of the gateway."""

    object: Literal["list"] = "list"
    data: list[ListedVideoModel | ListedVLModel | ListedAbsentModel]


class Health(FrozenModel):
    """Answer of `/livez` and `/readyz`; `ready` false goes with status 503 and the reasons."""

    ready: bool
    stuck: bool = Field(
        default=False,
        description="Waiting will not make it ready: what the reasons name has to be changed. False while loading.",
    )
    reasons: list[str] = Field(default_factory=list)
    details: dict[str, str] = Field(default_factory=dict)
