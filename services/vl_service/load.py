"""Which engine `VL_MODEL` names, and how to load it."""

from pathlib import Path

from vl_service.embedded import load_embedded
from vl_service.embedded_checkpoint import is_embedded
from vl_service.engine import Engine
from vl_service.settings import Settings


def load_engine(settings: Settings) -> Engine:
    """Load the engine that the settings name; takes seconds to minutes, any failure is the caller's to report."""
    if settings.model == "embedded":
        return load_embedded(settings.models_dir / "vl", settings.threads)
    folder = Path(settings.model).expanduser()
    if is_embedded(folder):
        return load_embedded(folder, settings.threads)
    from vl_service.language import load_language_model  # transformers takes seconds to import: only where it is used

    return load_language_model(settings)
