"""The embedded demo model. This is its one door: nothing outside the package imports what is inside."""

from pathlib import Path
from typing import TYPE_CHECKING

from web.worker.imports import lasting_imports

if TYPE_CHECKING:
    from vl_service.embedded.backend import EmbeddedBackend

WORDS = "vocabulary.json"


def is_embedded(folder: Path) -> bool:
    """Whether the folder is laid out as the embedded checkpoint is, rather than as a hub's."""
    return (folder / WORDS).is_file()


def load_embedded(folder: Path, threads: int) -> "EmbeddedBackend":
    """Raises `EmbeddedCheckpointError`. Its libraries are imported here: no other model needs them."""
    with lasting_imports():
        from vl_service.embedded import backend

    return backend.load_embedded(folder, threads)
