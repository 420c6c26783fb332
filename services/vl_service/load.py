"""Which engine `VL_MODEL` names, and how to load it."""

from pathlib import Path

from engine_store.manifest import EngineRefused
from vl_service.backend import Backend
from vl_service.embedded import is_embedded, load_embedded
from vl_service.settings import Settings


def load_backend(settings: Settings) -> Backend:
    """Load the engine that the settings name; takes seconds to minutes, any failure is the caller's to report."""
    folder = settings.models_dir / "vl" if settings.model == "embedded" else Path(settings.model).expanduser()
    if settings.model == "embedded" or is_embedded(folder):
        if settings.engine not in ("auto", "torch"):
            raise EngineRefused(
                f"VL_ENGINE={settings.engine}: there are no engines of the embedded checkpoint; set auto or torch")
        return load_embedded(folder, settings.threads)
    from vl_service.qwen.backend import (
        load_qwen,  # transformers takes seconds to import: only where it is used
    )

    return load_qwen(settings)
