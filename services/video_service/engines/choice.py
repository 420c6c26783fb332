"""Which engine renders which clip shape, decided from manifests alone, and why."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.store.choice import EngineChoice as EngineChoiceOf
from engines.store.choice import EngineSet, Found, Machine, Wish, Wording, choose, make_set, ready_lines
from engines.store.cuda import cuda_capability, cuda_name
from engines.store.gpus import check_gpu
from engines.store.manifest import EngineRefused, Recipe, Target
from engines.store.revisions import short
from engines.store.store import EngineStore
from video_service.engines.recipes import clip_recipe
from video_service.engines.shape import ClipShape
from video_service.weights.device import Device

ClipEngines = EngineSet[ClipShape]
EngineChoice = EngineChoiceOf[ClipShape]

_WORDING = Wording(variable="VIDEO_ENGINE", computes="torch renders", others="other shapes are refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation(Machine):
    """What the choice depends on besides the store."""

    revision: str
    text_tokens: int
    graphs: Sequence[str]
    """Those that render a clip, the denoiser's last; empty where no engines render."""
    runs: Callable[[ClipShape], Mapping[str, int]]
    """How often each graph runs in a render, where that is not once."""


def situation_of(
    revision: str, device: Device, *, text_tokens: int, graphs: Sequence[str],
    runs: Callable[[ClipShape], Mapping[str, int]],
) -> Situation:
    """On this machine."""
    on_gpu = device == "cuda"
    return Situation(
        revision=revision, text_tokens=text_tokens, graphs=graphs, runs=runs, device=device,
        capability=cuda_capability() if on_gpu else None, gpu=cuda_name() if on_gpu else None,
    )


def choose_engine(wish: Wish, store_dir: Path, situation: Situation) -> EngineChoice:
    """Pick by wish: see `engines.store.choice.choose`. Raises `EngineRefused`."""
    return choose(wish, situation, lambda target: _find(target, EngineStore(store_dir), situation), _WORDING)


def say_ready(store: EngineStore, situation: Situation) -> Iterable[str]:
    """Which whole sets the model could run on, and why not on others, a line each."""
    return ready_lines(situation, lambda target: _find(target, store, situation))


def _find(target: Target, store: EngineStore, situation: Situation) -> Found[ClipShape]:
    sets: list[ClipEngines] = []
    refused: list[str] = []
    for manifest in store.manifests()[0]:
        recipe = manifest.recipe
        if recipe.graph not in situation.graphs[-1:] or recipe.target != target:
            continue
        shape = ClipShape(**recipe.shape)
        try:
            _check_home(recipe, situation)
            sets.append(_complete(store, shape, recipe, situation))
        except EngineRefused as error:
            refused.append(f"{shape}: {error}")
    return tuple(sets), refused


def _check_home(recipe: Recipe, situation: Situation) -> None:
    if recipe.revision != situation.revision:
        raise EngineRefused(
            f"built from other weights ({short(recipe.revision)}, not {short(situation.revision)})"
        )
    check_gpu(recipe, situation.capability)
    if recipe.shape.get("text_tokens") != situation.text_tokens:
        raise EngineRefused(f"built for {recipe.shape.get('text_tokens')} prompt tokens, not {situation.text_tokens}")


def _complete(store: EngineStore, shape: ClipShape, like: Recipe, situation: Situation) -> ClipEngines:
    manifests = {
        graph: store.usable(clip_recipe(
            graph, shape, revision=like.revision, precision=like.precision, target=like.target,
            capability=like.capability,
        ))
        for graph in situation.graphs
    }
    return make_set(shape, like, manifests, situation.runs(shape))
