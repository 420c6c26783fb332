"""Which LoRAs are added to a model, and how that shows in the revision. Imports no model library."""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contracts.models import LoraInfo, LoraRef
from contracts.refusal import ParameterRefused
from engines.store.revisions import with_lora
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A file of low-rank updates of the transformer's weights, and how much of them is added. Picklable."""

    path: Path
    scale: float
    digest: str
    """First 16 hex digits of SHA-256 of the file."""
    id: str = ""
    """By which a request named it."""

    @property
    def label(self) -> str:
        """What it is called to whoever named it: requests know no paths."""
        return self.id or str(self.path)

    def revision(self, base: str) -> str:
        """Of the checkpoint `base` with this LoRA in it."""
        return with_lora(base, self.digest, self.scale)


def find_lora(settings: VideoSettings) -> Lora | None:
    """What VIDEO_LORA names; raises `ModelUnavailable` where that is no file that can be read."""
    if settings.lora is None:
        return None
    path = settings.lora.expanduser().resolve()
    try:
        digest = _digest_of(path)
    except OSError as error:
        raise ModelUnavailable(
            f"The LoRA {path} cannot be read ({error.strerror}); set VIDEO_LORA to a .safetensors file, or unset it."
        ) from error
    return Lora(path=path, scale=settings.lora_scale, digest=digest)


@dataclass(frozen=True, slots=True)
class LoraFolder:
    """The LoRAs that requests may name: the .safetensors files right in one folder, by their names without it."""

    folder: Path | None

    def listed(self) -> list[LoraInfo]:
        """What is there now, by id; nothing where the folder cannot be read."""
        if self.folder is None or not self.folder.is_dir():
            return []
        files = [file for file in sorted(self.folder.glob(f"*{_SUFFIX}")) if file.is_file()]
        return [
            LoraInfo(id=file.stem, modified_at=file.stat().st_mtime) for file in files if _ID.fullmatch(file.stem)
        ]

    def find(self, wanted: Sequence[LoraRef]) -> tuple[Lora, ...]:
        """The files; one at a scale of 0 is left out. Raises `ParameterRefused` for one that is not there."""
        known = {lora.id for lora in self.listed()}
        found = []
        for ref in wanted:
            try:
                if self.folder is None or ref.id not in known:
                    raise FileNotFoundError
                path = (self.folder / f"{ref.id}{_SUFFIX}").resolve()
                found.append(Lora(path=path, scale=ref.scale, digest=_digest_of(path), id=ref.id))
            except OSError:
                raise ParameterRefused("unknown_lora", "loras", f"There is no LoRA {ref.id!r} here.") from None
        return tuple(lora for lora in found if lora.scale)


def _digest_of(path: Path) -> str:
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, num_bytes: int, modified_ns: int) -> str:
    """Read once as long as size and time of the file stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
