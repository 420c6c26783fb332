"""`stillmotion.json`: what a checkpoint says of itself, over what its family says."""

from typing import Any

from pydantic import Field, ValidationError

from contracts.models import FloatRange, FrameRange, FrozenModel, IntRange, ModelSpec, Sampler, VideoTask
from video_service.weights.checkpoint import CARD_NAME, CheckpointFiles
from web.worker.errors import ModelUnavailable


class Card(FrozenModel):
    """The fields of `stillmotion.json`; any may be left out."""

    id: str | None = Field(default=None, min_length=1, max_length=200)
    profile: str | None = None
    tasks: list[VideoTask] | None = Field(default=None, min_length=1)
    sizes: list[str] | None = Field(default=None, min_length=1)
    min_side: int | None = Field(default=None, ge=64)
    max_pixels: int | None = Field(default=None, ge=64 * 64)
    num_frames: IntRange | None = None
    fps: IntRange | None = None
    steps: IntRange | None = None
    guidance_scale: FloatRange | None = None
    samplers: list[Sampler] | None = Field(default=None, min_length=1)
    flow_shift: float | None = Field(default=None, gt=0)
    max_sequence_length: int | None = Field(default=None, ge=1, le=4096)


def read_card(files: CheckpointFiles) -> Card:
    """The card, or an empty one where there is none; raises `ModelUnavailable` for one that is not valid."""
    try:
        return Card.model_validate(files.find_json(CARD_NAME))
    except ValidationError as error:
        raise ModelUnavailable(f"{files.path / CARD_NAME} is not valid: {error}") from error


def spec_of(files: CheckpointFiles, card: Card, **own: Any) -> ModelSpec:
    """The family's `own` fields of a `ModelSpec` with the card's in their place.

    Raises `ModelUnavailable` where a size or a default is not one that the model takes.
    """
    frames: FrameRange = own["num_frames"]
    given = {
        name: getattr(card, name) for name in Card.model_fields
        if name in ModelSpec.model_fields and getattr(card, name) is not None
    }
    if card.num_frames is not None:
        given["num_frames"] = FrameRange(**dict(card.num_frames), step=frames.step)
    if card.max_sequence_length is not None:
        given["text_tokens"] = card.max_sequence_length
    try:
        spec = ModelSpec.model_validate({"id": files.name} | own | given)
        _check(spec)
    except ValueError as error:  # pydantic's is one
        raise ModelUnavailable(f"{files.path / CARD_NAME} is not valid: {error}") from error
    return spec


def _check(spec: ModelSpec) -> None:
    for size in spec.sizes:
        sides = [int(side) for side in size.split("x")]
        if len(sides) != 2 or any(side % spec.size_multiple or side < spec.min_side for side in sides):
            raise ValueError(f"size {size} is not a multiple of {spec.size_multiple} from {spec.min_side} up")
    for field in (spec.num_frames, spec.fps, spec.steps, spec.guidance_scale):
        if not field.minimum <= field.default <= field.maximum:
            raise ValueError(f"the default of {field} is outside its bounds")
    if not spec.num_frames.takes(spec.num_frames.default):
        raise ValueError(f"{spec.num_frames.default} frames are not {spec.num_frames.rule}")
