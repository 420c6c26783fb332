"""Which LoRA the deployment adds to its model, and how that shows in the revision. Imports no model library."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engines.store.revisions import with_lora
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A file of low-rank updates of the transformer's weights, and how much of them is added. Picklable."""

    path: Path
    scale: float
    digest: str
    """First 16 hex digits of SHA-256 of the file."""

    def revision(self, base: str) -> str:
        """Of the checkpoint `base` with this LoRA in it."""
        return with_lora(base, self.digest, self.scale)


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
