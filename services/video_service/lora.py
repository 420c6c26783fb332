"""Which LoRA the deployment adds to its model, and how that shows in the revision. Imports no model library.

A revision is `BASE`, or `BASE+lora-HASH@SCALE`: BASE of the checkpoint, HASH of the LoRA file's content.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from video_service.checkpoint_folder import ModelUnavailable
from video_service.settings import VideoSettings

_MARK = "+lora-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A file of low-rank updates of the transformer's weights, and how much of them is added. Picklable."""

    path: Path
    scale: float
    digest: str
    """First 16 hex digits of SHA-256 of the file."""

    def revision(self, base: str) -> str:
        """Of the checkpoint `base` with this LoRA in it."""
        return f"{base}{_MARK}{self.digest}@{self.scale!r}"


def find_lora(settings: VideoSettings) -> Lora | None:
    """What VIDEO_LORA names; raises `ModelUnavailable` where that is no file that can be read."""
    if settings.lora is None:
        return None
    path = settings.lora.expanduser().resolve()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ModelUnavailable(
            f"The LoRA {path} cannot be read ({error.strerror}); set VIDEO_LORA to a .safetensors file, or unset it."
        ) from error
    return Lora(path=path, scale=settings.lora_scale, digest=digest)


def base_of(revision: str) -> str:
    """The revision without its LoRA."""
    return revision.partition(_MARK)[0]


def short(revision: str) -> str:
    """For people: the first 12 digits of the checkpoint's, and all that tells one LoRA from another."""
    base, mark, lora = revision.partition(_MARK)
    return base[:12] + mark + lora
