"""Which engines a clip needs, by name and recipe, from the checkpoint's facts alone. Imports no model library."""

from engine_store.manifest import Precision, Recipe, Target
from engine_store.recipes import make_recipe
from engine_store.revisions import base_of
from video_service.engines.shape import ClipShape

RENDER_GRAPHS = ("text_encoder", "vae_encoder", "vae_decoder_first", "vae_decoder_later", "transformer")
"""Those that the service renders with; the others are of families that it does not serve."""

LORA_GRAPHS = ("transformer",)
"""Those whose weights a LoRA changes; all others are the same engines with it and without."""


def revision_of(graph: str, revision: str) -> str:
    """Of one graph's weights, where the model has `revision`."""
    return revision if graph in LORA_GRAPHS else base_of(revision)


def clip_recipe(
    graph: str, shape: ClipShape, *, revision: str, precision: Precision, target: Target, capability: str | None
) -> Recipe:
    """The recipe of one graph of a clip as it would be built with what is installed now."""
    return make_recipe(
        graph, shape.fields(graph), revision=revision_of(graph, revision), precision=precision, target=target,
        capability=capability,
    )
