"""How images cross an inner wire: as bytes, each in a part of its own beside the JSON of the request."""

import hashlib
from typing import Annotated

from pydantic import ConfigDict, Field

from contracts.models import FrozenModel

MAX_IMAGE_BYTES = 21_000_000
MAX_BODY_BYTES = 2 * MAX_IMAGE_BYTES + 1_000_000  # of two images, or one in an earlier gateway's base64, and texts
REQUEST_PART = "request"

ImageBytes = Annotated[bytes, Field(max_length=MAX_IMAGE_BYTES)]
"""A whole PNG or JPEG as the gateway checked and encoded it: upright, sRGB, no transparency."""


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
