"""What tests of TurboWan's files begin with."""

from pathlib import Path

import pytest
import torch

from tests.checkpoints.turbowan import load_reference, save_base


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    """Weights of TurboDiffusion's own network."""
    return load_reference()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wan in diffusers' layout, beside which they are converted."""
    return save_base(tmp_path_factory.mktemp("base") / "wan")
