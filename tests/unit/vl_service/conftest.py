"""Parts that many tests share: the default engine, and photographs as base64."""

import base64
import io
from collections.abc import Callable

import pytest
import skimage.data
from PIL import Image

from vl_service.embedded import EmbeddedEngine, load_embedded
from vl_service.settings import Settings


@pytest.fixture(scope="session")
def embedded_engine() -> EmbeddedEngine:
    """The default engine with the weights that are shipped."""
    return load_embedded(Settings().models_dir / "vl", threads=0)


@pytest.fixture(scope="session")
def photograph() -> Callable[[str], Image.Image]:
    """A photograph of scikit-image by name."""
    return lambda name: Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


@pytest.fixture(scope="session")
def photograph_base64(photograph: Callable[[str], Image.Image]) -> Callable[[str], str]:
    """The same as a base64 PNG."""
    def encode(name: str) -> str:
        buffer = io.BytesIO()
        photograph(name).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    return encode
