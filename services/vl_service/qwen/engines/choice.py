"""Which engines see pictures for a Qwen-VL checkpoint, decided from the store's manifests alone, and why."""

from collections.abc import Iterable
from dataclasses import dataclass

from engines.store.choice import EngineChoice, Found, Machine, Wish, Wording, choose, make_set, ready_lines
from engines.store.cuda import cuda_capability, cuda_name
from engines.store.gpus import check_gpu
from engines.store.manifest import EngineRefused, Recipe, Target
from engines.store.recipes import make_recipe
from engines.store.revisions import short
from engines.store.store import EngineStore

_GRAPH = "vision_"
_WORDING = Wording(
    variable="VL_ENGINE", computes="torch sees", others="larger pictures are made smaller",
    build='stillmotion engines build --model "$VL_MODEL"',
)


@dataclass(frozen=True, slots=True)
class TowerShape:
    """How many patches go into the tower at once."""

    patches: int

    @property
    def graph(self) -> str:
        """Name of the one graph."""
        return f"{_GRAPH}{self.patches}"

    def fields(self, graph: str) -> dict[str, int]:
        """All there is."""
        return {"patches": self.patches}

    def __str__(self) -> str:
        return f"{self.patches} patches"


def tower_shape(recipe: Recipe) -> TowerShape | None:
    """None where it is no tower's."""
    return TowerShape(recipe.shape["patches"]) if recipe.graph.startswith(_GRAPH) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation(Machine):
    """What the choice depends on besides the store."""

    revision: str


def situation_of(revision: str, device: str) -> Situation:
    """On this machine."""
    if device != "cuda":
        return Situation(revision=revision, device="cpu", capability=None, gpu=None)
    return Situation(revision=revision, device="cuda", capability=cuda_capability(), gpu=cuda_name())


def choose_tower(wish: Wish, store: EngineStore, situation: Situation) -> EngineChoice[TowerShape]:
    """See `engines.store.choice.choose`. Raises `EngineRefused`."""
    try:
        return choose(wish, situation, lambda target: _find(target, store, situation), _WORDING)
    except EngineRefused as error:
        raise EngineRefused(f"VL_ENGINE={wish}: {error}") from error


def say_ready(store: EngineStore, situation: Situation) -> Iterable[str]:
    """Which engines the checkpoint's tower could run on, and why not on others, a line each."""
    return ready_lines(situation, lambda target: _find(target, store, situation))


def _find(target: Target, store: EngineStore, situation: Situation) -> Found[TowerShape]:
    sets, refused = [], []
    for manifest in store.manifests()[0]:
        like, shape = manifest.recipe, tower_shape(manifest.recipe)
        if shape is None or like.target != target:
            continue
        try:
            if like.revision != situation.revision:
                raise EngineRefused(
                    f"built from other weights ({short(like.revision)}, not {short(situation.revision)})")
            check_gpu(like, situation.capability)
            # Of this recipe as it would be built now: what another version of a library made is stale.
            usable = store.usable(make_recipe(
                shape.graph, shape.fields(shape.graph), revision=like.revision, precision=like.precision,
                target=like.target, capability=like.capability,
            ))
            sets.append(make_set(shape, like, {shape.graph: usable}))
        except EngineRefused as error:
            refused.append(f"{shape} {like.precision}: {error}")
    return tuple(sets), refused
