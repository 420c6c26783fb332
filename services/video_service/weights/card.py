"""What a checkpoint can be asked for: its own `stillmotion.json`, or bounds derived from its configs."""

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from contracts.models import FloatRange, FrozenModel, IntRange, Sampler, VideoTask
from video_service.weights.checkpoint import CARD_NAME, CheckpointFolder, ModelUnavailable

CONDITION_CHANNELS = 20  # 4 of the mask and 16 latents
TEMPORAL_SCALE = 4
WAN_SIZES = ("832x480", "480x832", "1280x720", "720x1280")
WAN_SAMPLERS: tuple[Sampler, ...] = ("unipc", "euler", "ode", "sde")


class CardFile(FrozenModel):
    """The fields of `stillmotion.json`; any may be left out."""

    id: str | None = Field(default=None, min_length=1, max_length=200)
    profile: str = "wan"
    tasks: list[VideoTask] | None = Field(default=None, min_length=1)
    sizes: list[str] = Field(default=list(WAN_SIZES), min_length=1)
    min_side: int = Field(default=64, ge=64)
    max_pixels: int = Field(default=1280 * 720, ge=64 * 64)
    num_frames: IntRange = IntRange(minimum=1, maximum=161, default=81)
    fps: IntRange = IntRange(minimum=1, maximum=60, default=16)
    steps: IntRange = IntRange(minimum=1, maximum=100, default=50)
    guidance_scale: FloatRange = FloatRange(minimum=1.0, maximum=20.0, default=5.0)
    samplers: list[Sampler] = Field(default=list(WAN_SAMPLERS), min_length=1)
    flow_shift: float | None = Field(default=None, gt=0)
    max_sequence_length: int = Field(default=512, ge=1, le=4096)


class ModelCard(FrozenModel):
    """Every bound and default of one checkpoint."""

    id: str
    profile: str
    tasks: list[VideoTask]
    sizes: list[str]
    size_multiple: int
    min_side: int
    max_pixels: int
    num_frames: IntRange
    fps: IntRange
    steps: IntRange
    guidance_scale: FloatRange
    samplers: list[Sampler]
    flow_shift: float
    max_sequence_length: int

    @model_validator(mode="after")
    def _sizes_are_renderable(self) -> Self:
        for size in self.sizes:
            sides = [int(side) for side in size.split("x")]
            if len(sides) != 2 or any(side % self.size_multiple or side < self.min_side for side in sides):
                raise ValueError(f"size {size} is not a multiple of {self.size_multiple} from {self.min_side} up")
        for field in (self.num_frames, self.fps, self.steps, self.guidance_scale):
            if not field.minimum <= field.default <= field.maximum:
                raise ValueError(f"the default of {field} is outside its bounds")
        return self


def read_card(folder: CheckpointFolder) -> ModelCard:
    """Bounds and defaults of a checkpoint; raises `ModelUnavailable` where its kind is not supported."""
    transformer, vae = folder.read_json("transformer/config.json"), folder.read_json("vae/config.json")
    _check_kind(folder, transformer, vae)
    has_card = (folder.path / CARD_NAME).is_file()
    try:
        card = CardFile.model_validate(folder.read_json(CARD_NAME) if has_card else {})
        scale, patch = vae.get("scale_factor_spatial", 8), transformer.get("patch_size", [1, 2, 2])
        if patch[1] != patch[2]:
            raise ModelUnavailable(f"{folder.name}: patches of {patch[1]}x{patch[2]} are not supported, only squares.")
        given = card.model_dump(exclude={"id", "tasks", "flow_shift"})
        return ModelCard(
            **given, id=card.id or folder.name, tasks=card.tasks or _tasks(transformer), size_multiple=scale * patch[1],
            flow_shift=card.flow_shift or _flow_shift(folder),
        )
    except ValidationError as error:
        raise ModelUnavailable(f"{folder.path / CARD_NAME} is not valid: {error}") from error


def _check_kind(folder: CheckpointFolder, transformer: dict[str, Any], vae: dict[str, Any]) -> None:
    index = folder.read_json("model_index.json")
    name = folder.name
    if transformer.get("_class_name") != "WanTransformer3DModel" or vae.get("_class_name") != "AutoencoderKLWan":
        raise ModelUnavailable(
            f"{name} is a {index.get('_class_name', 'model of unknown kind')}; this service renders with Wan "
            "checkpoints (WanTransformer3DModel with AutoencoderKLWan) in diffusers' layout."
        )
    if (index.get("transformer_2") or [None])[0] is not None:
        raise ModelUnavailable(f"{name} has two experts (transformer_2), not supported yet; use a Wan2.1 checkpoint.")
    if index.get("expand_timesteps") or vae.get("is_residual") or vae.get("patch_size") not in (None, 1):
        raise ModelUnavailable(f"{name} is of the Wan2.2 TI2V-5B kind, not supported yet; use a Wan2.1 checkpoint.")
    if transformer.get("image_dim") is not None:
        raise ModelUnavailable(
            f"{name} needs a CLIP image encoder (image_dim is set), not supported yet; use a 36-channel checkpoint "
            "without one, or a text-to-video one."
        )
    if vae.get("scale_factor_temporal", TEMPORAL_SCALE) != TEMPORAL_SCALE:
        raise ModelUnavailable(f"{name}: a temporal scale other than {TEMPORAL_SCALE} is not supported.")
    latent = vae.get("z_dim", 16)
    if transformer.get("in_channels", 16) not in (latent, latent + TEMPORAL_SCALE + latent):
        raise ModelUnavailable(f"{name}: in_channels fit neither text- nor image-to-video with {latent} latents.")


def _tasks(transformer: dict[str, Any]) -> list[VideoTask]:
    # A 36-channel checkpoint was trained with a picture in every clip unless its card says otherwise.
    return ["t2v"] if transformer.get("in_channels", 16) == transformer.get("out_channels", 16) else ["i2v"]


def _flow_shift(folder: CheckpointFolder) -> float:
    config = folder.read_json("scheduler/scheduler_config.json")
    return float(config.get("flow_shift") or config.get("shift") or 3.0)
