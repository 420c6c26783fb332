"""The environment of the video service, read once."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parents[2]

DeviceChoice = Literal["auto", "cpu", "cuda"]
DtypeChoice = Literal["auto", "float32", "bfloat16"]
QuantLinear = Literal["none", "auto", "fp8", "int8"]
EngineSetting = Literal["auto", "torch", "onnx", "tensorrt", "tensorrt-rtx"]


def _listed(value: Any) -> Any:
    """The entries of a text with commas, each once."""
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(item.strip() for item in value.split(",") if item.strip()))


class VideoSettings(BaseSettings):
    """Every setting of the process. An empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="ignore", env_ignore_empty=True)

    host: Annotated[str, Field(validation_alias="VIDEO_HOST")] = "127.0.0.1"
    port: Annotated[int, Field(validation_alias="VIDEO_PORT", ge=0, le=65535)] = 8002
    model: Annotated[
        str,
        Field(
            validation_alias="VIDEO_MODEL",
            min_length=1,
            description="`embedded`, a checkpoint folder, or a hub id with an optional @revision.",
        ),
    ] = "embedded"
    models: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_listed),
        Field(
            validation_alias="VIDEO_MODELS",
            description="Several such, with commas, in the place of VIDEO_MODEL; the first is the default.",
        ),
    ] = ()
    memory_budget: Annotated[
        ByteSize | None,
        Field(
            validation_alias="VIDEO_MEMORY_BUDGET", gt=0,
            description="Bytes, or such as 40GiB, for loaded weights; unset: most of the device's memory.",
        ),
    ] = None
    lora: Annotated[
        Path | None,
        Field(validation_alias="VIDEO_LORA", description="A .safetensors file, merged into the transformer at load."),
    ] = None
    lora_scale: Annotated[
        float,
        Field(validation_alias="VIDEO_LORA_SCALE", allow_inf_nan=False, description="How much of it is added."),
    ] = 1.0
    loras_dir: Annotated[
        Path | None,
        Field(validation_alias="VIDEO_LORAS", description="A folder: its .safetensors files may be named by requests."),
    ] = None
    models_dir: Annotated[Path, Field(validation_alias="STILLMOTION_MODELS")] = REPOSITORY / "models"
    data_dir: Annotated[Path, Field(validation_alias="STILLMOTION_DATA")] = Path("data")
    device: Annotated[DeviceChoice, Field(validation_alias="VIDEO_DEVICE")] = "auto"
    dtype: Annotated[
        DtypeChoice,
        Field(
            validation_alias="VIDEO_DTYPE",
            description="auto: bfloat16 where the hardware computes it natively, else float32.",
        ),
    ] = "auto"
    engine: Annotated[
        EngineSetting,
        Field(
            validation_alias="VIDEO_ENGINE",
            description="auto: per clip shape, the fastest of what is built, verified and measured here, else torch.",
        ),
    ] = "auto"
    fast_layers: Annotated[
        bool,
        Field(
            validation_alias="VIDEO_FAST_LAYERS",
            description="In bfloat16 on a CUDA device, our own layers: torch's numbers up to rounding.",
        ),
    ] = True
    quant_linear: Annotated[
        QuantLinear,
        Field(
            validation_alias="VIDEO_QUANT_LINEAR",
            description="fp8: the transformer's linear layers in float8 by rows, an approximation, in our own layers; "
            "int8: a TurboWan's -quant weights stay so, in half the memory, with the same frames; auto: fp8 where the "
            "GPU computes it, which measured faster, int8 on other GPUs.",
        ),
    ] = "none"
    rcm_noise: Annotated[
        Literal["cpu", "cuda"],
        Field(
            validation_alias="VIDEO_RCM_NOISE",
            description="Where the samplers `ode` and `sde` draw: cpu, so that a seed means the same everywhere; cuda, "
            "as TurboDiffusion does.",
        ),
    ] = "cpu"
    experts: Annotated[
        Literal["auto", "both", "one"],
        Field(
            validation_alias="VIDEO_EXPERTS",
            description="Of a model with two experts on a GPU: both in its memory, or one, the other waiting on the "
            "host for its turn; auto: both where they fit.",
        ),
    ] = "auto"
    attention_topk: Annotated[
        float | None,
        Field(
            validation_alias="VIDEO_ATTENTION_TOPK", gt=0, le=1,
            description="Attend to this share of the key blocks alone: an approximation, 0.1 for models taught so.",
        ),
    ] = None
    gpus: Annotated[
        int,
        Field(
            validation_alias="VIDEO_GPUS", ge=1, le=64,
            description="So many GPUs compute each step of a video together, the first of those that the process sees; "
            "a divisor of the transformer's attention heads. On a CPU: so many processes.",
        ),
    ] = 1
    gpus_decode: Annotated[
        bool,
        Field(
            validation_alias="VIDEO_GPUS_DECODE",
            description="The GPUs of VIDEO_GPUS decode frames together too, by rows.",
        ),
    ] = False
    gpus_guidance: Annotated[
        bool,
        Field(
            validation_alias="VIDEO_GPUS_GUIDANCE",
            description="With VIDEO_GPUS=2 and guidance each computes one of a step's two, and not half of both; seen "
            "on CPU processes alone.",
        ),
    ] = False
    gpus_timeout_s: Annotated[
        float,
        Field(
            validation_alias="VIDEO_GPUS_TIMEOUT_S", gt=0,
            description="What a step on VIDEO_GPUS may take, and what they wait for each other in it; then the worker "
            "is replaced, and the gateway puts the render once more.",
        ),
    ] = 300.0
    warm_up: Annotated[
        bool,
        Field(
            validation_alias="VIDEO_WARM_UP",
            description="On a GPU, render one clip of the default size before the service is ready.",
        ),
    ] = True
    badge: Annotated[
        str,
        Field(
            validation_alias="VIDEO_BADGE", max_length=40,
            description="Words in the corner of every frame, such as `AI generated`; unset: none.",
        ),
    ] = ""
    badge_font: Annotated[
        Path | None,
        Field(validation_alias="VIDEO_BADGE_FONT", description="A font file for words in other than Latin letters."),
    ] = None
    engines_dir: Annotated[
        Path | None, Field(validation_alias="VIDEO_ENGINES", description="Engine store; unset: in STILLMOTION_DATA.")
    ] = None
    cuda_graphs: Annotated[
        bool,
        Field(
            validation_alias="VIDEO_CUDA_GRAPHS",
            description="Queue a denoising step of a TensorRT engine as one CUDA graph.",
        ),
    ] = False
    threads: Annotated[int, Field(validation_alias="VIDEO_THREADS", ge=0, description="CPU threads; 0: all.")] = 0
    batch: Annotated[
        int,
        Field(
            validation_alias="VIDEO_BATCH", ge=1, le=16,
            description="So many waiting renders, alike but for words, pictures and seed, are denoised as one where "
            "measured steps say that it is faster.",
        ),
    ] = 1
    batch_wait_s: Annotated[
        float,
        Field(
            validation_alias="VIDEO_BATCH_WAIT_S", ge=0, le=60,
            description="How long a render waits for others like it to come, while nothing runs.",
        ),
    ] = 0.0
    max_queue: Annotated[
        int, Field(validation_alias="VIDEO_MAX_QUEUE", ge=1, le=1000, description="Renders waiting for their turn.")
    ] = 16
    render_timeout_s: Annotated[float, Field(validation_alias="VIDEO_RENDER_TIMEOUT_S", gt=0)] = 1800.0
    cancel_grace_s: Annotated[
        float,
        Field(
            validation_alias="VIDEO_CANCEL_GRACE_S", gt=0,
            description="What a canceled render has to stop by itself (one step); then its worker is killed.",
        ),
    ] = 60.0
    drain_s: Annotated[
        float,
        Field(
            validation_alias="VIDEO_DRAIN_S", ge=0,
            description="After SIGTERM: for the render at work and whoever fetches its video, before the end; 0: none.",
        ),
    ] = 0.0
    load_timeout_s: Annotated[
        float, Field(validation_alias="VIDEO_LOAD_TIMEOUT_S", gt=0, description="For loading, a download included.")
    ] = 3600.0
    keep_finished_s: Annotated[
        float, Field(validation_alias="VIDEO_KEEP_FINISHED_S", gt=0, description="Then an ended render is removed.")
    ] = 86400.0
    max_finished: Annotated[
        int, Field(validation_alias="VIDEO_MAX_FINISHED", ge=1, description="Ended renders kept; the oldest go first.")
    ] = 500
    max_finished_bytes: Annotated[
        int,
        Field(validation_alias="VIDEO_MAX_FINISHED_BYTES", ge=1, description="Of their videos; the oldest go first."),
    ] = 10 << 30
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(validation_alias="STILLMOTION_LOG_LEVEL")
    ] = "INFO"
    internal_token: Annotated[SecretStr | None, Field(validation_alias="STILLMOTION_INTERNAL_TOKEN")] = None

    @property
    def model_names(self) -> tuple[str, ...]:
        """What is deployed, the default first."""
        return self.models or (self.model,)

    @property
    def engine_store_dir(self) -> Path:
        return self.engines_dir or self.data_dir / "engines"
