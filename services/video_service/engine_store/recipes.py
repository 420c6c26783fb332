"""Which engines a clip needs, by name and recipe, from the checkpoint's facts alone. Imports no model library."""

import importlib.metadata
from collections.abc import Mapping

from video_service.engine_store.manifest import Precision, Recipe, Target
from video_service.engine_store.shape import ClipShape
from video_service.lora import base_of

EXPORT_FORMAT = 2
"""Raise it when a graph changes its meaning: every engine made before is stale then."""

GRAPH_FIELDS: Mapping[str, tuple[str, ...]] = {
    "text_encoder": ("text_tokens",),
    "vae_encoder": ("width", "height", "num_frames"),
    "vae_decoder_first": ("width", "height"),
    "vae_decoder_later": ("width", "height"),
    "transformer": ("width", "height", "num_frames", "text_tokens"),
    "transformer_2": ("width", "height", "num_frames", "text_tokens"),
    "unet": ("width", "height", "num_frames", "text_tokens"),
}
"""What each graph of a clip is fixed to; graphs of equal fields are one engine."""

RENDER_GRAPHS = ("text_encoder", "vae_encoder", "vae_decoder_first", "vae_decoder_later", "transformer")
"""Those that the service renders with; the others are of families that it does not serve."""

LORA_GRAPHS = ("transformer",)
"""Those whose weights a LoRA changes; all others are the same engines with it and without."""

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


def revision_of(graph: str, revision: str) -> str:
    """Of one graph's weights, where the model has `revision`."""
    return revision if graph in LORA_GRAPHS else base_of(revision)


def make_recipe(
    graph: str, shape: ClipShape, *, revision: str, precision: Precision, target: Target, capability: str | None
) -> Recipe:
    """The recipe of one graph of a clip as it would be built with what is installed now."""
    return Recipe(
        revision=revision_of(graph, revision), graph=graph,
        shape={name: getattr(shape, name) for name in GRAPH_FIELDS[graph]},
        precision=precision, target=target, capability=capability,
        libraries={
            "torch": importlib.metadata.version("torch").split("+")[0],
            target: library_version(target) or "none",
        },
        export_format=EXPORT_FORMAT,
    )
