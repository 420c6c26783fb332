"""Everything the environment may say to this service, read once."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """Settings of the vision-language service; times in seconds, sizes in bytes or pixels."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, populate_by_name=True, extra="ignore")

    host: str = Field(default="127.0.0.1", validation_alias="VL_HOST")
    port: int = Field(default=8001, ge=0, le=65535, validation_alias="VL_PORT")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", validation_alias="STILLMOTION_LOG_LEVEL")
    internal_token: SecretStr | None = Field(default=None, validation_alias="STILLMOTION_INTERNAL_TOKEN")
    model: str = Field(
        default="embedded", validation_alias="VL_MODEL",
        description="`embedded`, a folder in its layout, or the hub id or folder of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL "
        "checkpoint.",
    )
    backend: Literal["auto", "embedded", "qwen", "openai"] = Field(
        default="auto", validation_alias="VL_BACKEND",
        description="auto: openai where VL_REMOTE_URL is set, else what VL_MODEL is. Named, anything else is refused.")
    remote_url: str | None = Field(
        default=None, validation_alias="VL_REMOTE_URL", pattern=r"^https?://[^\s]+$",
        description="Base URL of a server with OpenAI's chat completions, such as http://vllm:8000/v1, in place of a "
        "model in this process; VL_MODEL is then its name there.")
    remote_key: SecretStr | None = Field(
        default=None, validation_alias="VL_REMOTE_KEY", description="Its key, where it asks for one.")
    models_dir: Path = Field(
        default=REPOSITORY / "models", validation_alias="STILLMOTION_MODELS",
        description="Holds the embedded checkpoint in vl/.",
    )
    data_dir: Path = Field(default=Path("data"), validation_alias="STILLMOTION_DATA")
    profiles_dir: Path | None = Field(
        default=None, validation_alias="VL_PROFILES",
        description="A folder of prompt profiles, NAME.toml, and templates.toml, beside ours; see docs/prompts.md.")
    engines_dir: Path | None = Field(
        default=None, validation_alias="VL_ENGINES", description="Engine store; unset: in STILLMOTION_DATA.")
    engine: Literal["auto", "torch", "onnx", "tensorrt", "tensorrt-rtx"] = Field(
        default="auto", validation_alias="VL_ENGINE",
        description="A Qwen checkpoint's vision tower. auto: per number of patches, the fastest of what is built, "
        "verified and measured here, else torch.")
    revision: str | None = Field(default=None, validation_alias="VL_REVISION", description="Hub revision to pin.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", validation_alias="VL_DEVICE")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", validation_alias="VL_DTYPE")
    quant: Literal["none", "fp8", "int8", "4bit"] = Field(
        default="none", validation_alias="VL_QUANT",
        description="Weights of a Qwen checkpoint's language model in fewer bits; its tower stays in 16.")
    fast_layers: bool = Field(
        default=True, validation_alias="VL_FAST_LAYERS",
        description="A Qwen checkpoint in our own layers, which write several texts at once: the same up to rounding. "
        "Its tower in bfloat16 on a CUDA device alone.")
    greedy: bool = Field(default=False, validation_alias="VL_GREEDY", description="Most likely token, no sampling.")
    image_tokens: int = Field(
        default=1280, ge=16, le=16384, validation_alias="VL_IMAGE_TOKENS",
        description="Most vision tokens that one picture may cost a Qwen checkpoint.",
    )
    threads: int = Field(
        default=0, ge=0, validation_alias="VL_THREADS",
        description="CPU threads; 0: one for the embedded checkpoint, torch's choice for others.",
    )
    quant_linear: Literal["none", "fp8"] = Field(
        default="none", validation_alias="VL_QUANT_LINEAR",
        description="fp8: a Qwen checkpoint's weights in eight bits as it writes, on a CUDA device; it reads in 16.")
    slots: int = Field(
        default=0, ge=0, le=64, validation_alias="VL_SLOTS",
        description="Texts that a Qwen checkpoint writes at once; 0: up to 16, as memory allows, and 4 on CPUs. "
        "Of a server at VL_REMOTE_URL: calls that it is asked at once; 0: 16.")
    queue_limit: int = Field(default=32, ge=1, le=1000, validation_alias="VL_QUEUE_LIMIT")
    deadline_s: float = Field(default=120.0, gt=0, le=3600, validation_alias="VL_DEADLINE_S")

    role: Literal["all", "vision", "language"] = Field(
        default="all", validation_alias="VL_ROLE",
        description="Of a Qwen checkpoint: vision loads its tower alone and serves features; language loads no tower "
        "and fetches them from VL_VISION_URL.")
    vision_url: str | None = Field(
        default=None, pattern=r"^https?://[^/]+/?$", validation_alias="VL_VISION_URL",
        description="Of the service in the vision role.")
    vision_timeout_s: float = Field(
        default=30.0, gt=0, le=600, validation_alias="VL_VISION_TIMEOUT_S",
        description="For one picture's features, tries and waiting included.")
    feature_cache_bytes: int = Field(
        default=2**28, ge=0, validation_alias="VL_FEATURE_CACHE_BYTES",
        description="Main memory for what was seen of pictures.")
    feature_cache_dir: Path | None = Field(
        default=None, validation_alias="VL_FEATURE_CACHE_DIR", description="Keeps it across restarts; unset: nothing.")
    feature_cache_disk_bytes: int = Field(default=2**32, ge=0, validation_alias="VL_FEATURE_CACHE_DISK_BYTES")

    @model_validator(mode="after")
    def _role_is_complete(self) -> Self:
        if self.role == "language" and self.vision_url is None:
            raise ValueError("VL_ROLE=language needs VL_VISION_URL, the address of a service with VL_ROLE=vision")
        return self

    @model_validator(mode="after")
    def _backend_is_one(self) -> Self:
        if self.backend == "openai" and self.remote_url is None:
            raise ValueError("VL_BACKEND=openai needs VL_REMOTE_URL, the base URL of a server with OpenAI's chat "
                             "completions")
        if self.backend in ("embedded", "qwen") and self.remote_url is not None:
            raise ValueError(f"VL_BACKEND={self.backend} and VL_REMOTE_URL name two backends: unset one of them")
        if self.backend == "qwen" and self.model == "embedded":
            raise ValueError("VL_BACKEND=qwen needs VL_MODEL, the hub id or folder of a Qwen checkpoint")
        if self.remote_url is not None and self.role != "all":
            raise ValueError(f"VL_ROLE={self.role} is for a Qwen checkpoint here: unset it, or VL_REMOTE_URL")
        return self

    @property
    def engine_store_dir(self) -> Path:
        return self.engines_dir or self.data_dir / "engines"
