"""What the types of all wires are made of: frozen models, ranges of numbers, and requests with images.

Images cross an inner wire as bytes, each in a part of its own beside the JSON of the request.
"""

import hashlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

MAX_IMAGE_BYTES = 21_000_000
MAX_BODY_BYTES = 2 * MAX_IMAGE_BYTES + 1_000_000  # of two images, or one in an earlier gateway's base64, and texts
REQUEST_PART = "request"
_VALUES = frozenset({"default", "metadata", "serialization"})  # of a pydantic schema: no schemas are in them

ImageBytes = Annotated[bytes, Field(max_length=MAX_IMAGE_BYTES)]
"""A whole PNG or JPEG as the gateway checked and encoded it: upright, sRGB, no transparency."""


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


def _without_truth(part: Any) -> Any:
    """The schema, or a part of one, with numbers that are no booleans: pydantic takes those for 1 and 0, and its
    strict numbers would refuse the text of a form."""
    if isinstance(part, list | tuple):
        return type(part)(_without_truth(item) for item in part)
    if not isinstance(part, dict):
        return part
    schema: Any = {name: value if name in _VALUES else _without_truth(value) for name, value in part.items()}
    kind = schema.get("type")
    if kind == "int" or (kind == "literal" and any(type(value) is int for value in schema["expected"])):
        return core_schema.no_info_before_validator_function(_whole, schema)
    if kind == "float":
        return core_schema.no_info_before_validator_function(_number, schema)
    return schema


class FrozenModel(BaseModel):
    """Immutable wire type that refuses fields it does not know, and `true` and `false` where numbers are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _without_truth(handler(source))


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


class FrameRange(IntRange):
    """How many frames a clip may have: the minimum, and from there in equal steps."""

    step: int = Field(default=1, ge=1, description="4 where the temporal VAE takes 4k+1 only, 1 where any number goes.")

    @property
    def rule(self) -> str:
        """In words, such as `4k+1 frames`."""
        return "frames" if self.step == 1 else f"{self.step}k+{self.minimum % self.step} frames"

    def nearest(self, wanted: float) -> int:
        """The legal number closest to `wanted`, within the bounds or not."""
        return self.minimum + round((wanted - self.minimum) / self.step) * self.step

    def takes(self, num_frames: int) -> bool:
        """Whether a clip may have exactly that many."""
        return self.minimum <= num_frames <= self.maximum and (num_frames - self.minimum) % self.step == 0


class ImageRequest(FrozenModel):
    """A request whose images are its fields of bytes; in multipart each is a part of the field's name."""

    model_config = ConfigDict(val_json_bytes="base64")  # an earlier gateway sends them in the JSON

    def images(self) -> dict[str, bytes]:
        """The images by the names of their fields."""
        return {name: value for name, value in self if isinstance(value, bytes)}

    def words_json(self) -> bytes:
        """All else, as JSON. What is at its default is left out: an earlier service would refuse a field that it does
        not know, and a field that a later version adds changes no digest."""
        return self.model_dump_json(exclude_defaults=True, exclude=set(self.images())).encode()

    def digest(self) -> str:
        """SHA-256 of what is asked, images included. Some milliseconds for a large image."""
        asked = hashlib.sha256(self.words_json())
        for name, image in self.images().items():
            asked.update(name.encode() + hashlib.sha256(image).digest())
        return asked.hexdigest()
