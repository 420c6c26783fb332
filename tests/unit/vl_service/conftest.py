"""Parts that many tests share: the default engine, photographs as base64, and engines of vision towers."""

import base64
import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.photographs import photograph
from vl_service.embedded.backend import EmbeddedBackend, load_embedded
from vl_service.settings import Settings

if TYPE_CHECKING:
    from tests.unit.vl_service.qwen.built_tower import Build, Built


@pytest.fixture(scope="session")
def embedded_backend() -> EmbeddedBackend:
    """The default engine with the weights that are shipped."""
    return load_embedded(Settings().models_dir / "vl", threads=0)


@pytest.fixture(scope="session")
def photograph_base64() -> Callable[[str], str]:
    """A photograph by name, as a base64 PNG."""
    def encode(name: str) -> str:
        buffer = io.BytesIO()
        photograph(name).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    return encode


@pytest.fixture(scope="session")
def build_tower(tmp_path_factory: pytest.TempPathFactory) -> "Build":
    """A tiny checkpoint of a family with an engine of its tower, built by the first test that asks for it."""
    from tests.unit.vl_service.qwen import built_tower  # transformers takes seconds to import

    @functools.cache
    def build(family: str) -> "Built":
        return built_tower.build_tower(family, tmp_path_factory.mktemp("tower"))

    return build
