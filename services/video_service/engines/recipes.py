"""Which engine a graph of a clip needs, by recipe, from the checkpoint's facts alone. Imports no model library."""

from engines.store.manifest import Precision, Recipe, Target
from engines.store.recipes import make_recipe
from engines.store.revisions import base_of
from video_service.engines.shape import GRAPH_FIELDS, ClipShape


def revision_of(graph: str, revision: str) -> str:
    """Of one graph's weights, where the model has `revision`: a LoRA changes those of the denoisers only."""
    return base_of(revision) if graph in GRAPH_FIELDS else revision


def clip_recipe(
    graph: str, shape: ClipShape, *, revision: str, precision: Precision, target: Target, capability: str | None
) -> Recipe:
    """The recipe of one graph of a clip as it would be built with what is installed now."""
    return make_recipe(
        graph, shape.fields(graph), revision=revision_of(graph, revision), precision=precision, target=target,
        capability=capability,
    )
