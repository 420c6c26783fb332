"""Tiny Qwen-VL checkpoints with an engine of their tower, which the command built."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.store.manifest import Manifest
from engines.store.store import EngineStore
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint
from vl_service.qwen.engines.__main__ import main

SLOTS = 144
FIRST = "qwen2_5_vl"
"""The family with most to go wrong."""
FIRST_AND_REST = [FIRST, *(pytest.param(family, marks=pytest.mark.full) for family in FAMILIES if family != FIRST)]
"""An export takes seconds, and test_vision_graph.py has the graphs of all in torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A tiny checkpoint and its engine for ONNX Runtime, which the command built."""

    family: str
    folder: Path
    data: Path
    said: str

    @property
    def store(self) -> EngineStore:
        return EngineStore(self.data / "engines")

    @property
    def manifest(self) -> Manifest:
        [found] = [found for found in self.store.manifests()[0] if found.recipe.target == "onnx"]
        return found


def command(data: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of `stillmotion engines`, on the store in `data`."""
    said, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(told):
        patch.setenv("STILLMOTION_DATA", str(data))
        patch.setenv("VL_DEVICE", "cpu")
        patch.delenv("VL_MODEL", raising=False)
        return main(arguments), said.getvalue(), told.getvalue()


Build = Callable[[str], Built]
"""Of a family."""


def build_tower(family: str, folder: Path) -> Built:
    """In `folder`, which must exist."""
    checkpoint, data = save_tiny_checkpoint(family, folder / family), folder / "data"
    status, said, told = command(data, "build", "--model", str(checkpoint), "--patches", str(SLOTS))
    assert status == 0, told
    return Built(family=family, folder=checkpoint, data=data, said=said)
