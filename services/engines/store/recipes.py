"""The recipe of an engine as it would be built with what is installed now. Imports no model library."""

import importlib.metadata
from collections.abc import Mapping

from engines.store.manifest import Precision, Recipe, Target

EXPORT_FORMAT = 2
"""Raise it when a graph changes its meaning: every engine made before is stale then."""

DISTRIBUTIONS: Mapping[Target, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx", "tensorrt_rtx"),
}


def library_version(target: Target) -> str | None:
    """The installed version of what runs `target`, or None."""
    for name in DISTRIBUTIONS[target]:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def make_recipe(
    graph: str, shape: Mapping[str, int], *, revision: str, precision: Precision, target: Target,
    capability: str | None,
) -> Recipe:
    """Of one graph that is fixed to `shape`, of the weights `revision`."""
    return Recipe(
        revision=revision, graph=graph, shape=dict(shape), precision=precision, target=target, capability=capability,
        libraries={
            "torch": importlib.metadata.version("torch").split("+")[0],
            target: library_version(target) or "none",
        },
        export_format=EXPORT_FORMAT,
    )
