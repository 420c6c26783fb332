"""Which engine renders which clip shape, decided from manifests alone, and why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine_store.gpus import check_gpu
from engine_store.manifest import EngineRefused, Manifest, Precision, Recipe, Target
from engine_store.recipes import library_version
from engine_store.revisions import short
from engine_store.store import EngineStore
from video_service.clip_engines.recipes import RENDER_GRAPHS, clip_recipe
from video_service.clip_engines.shape import ClipShape

Wish = Literal["auto", "torch", "onnx", "tensorrt", "tensorrt-rtx"]

_WORTH_IT = 0.97  # of torch's time: below the noise of one measurement, torch stays


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSet:
    """Every engine of one clip shape, verified."""

    shape: ClipShape
    target: Target
    precision: Precision
    recipes: dict[str, Recipe]
    """By graph name."""
    clip_s: float
    """The engines' own time for one clip with the model's default steps, as measured when verified."""
    speed_up: float
    """Torch's time over that, on the same machine."""
    measured_on: str | None
    """Name of the GPU; None on a CPU."""

    def __str__(self) -> str:
        return f"{self.shape} {self.target} {self.precision} ({self.speed_up:.2f}x torch)"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """What renders: engines for the shapes in `sets`; any other shape is torch's, or refused if `forced`."""

    forced: bool
    sets: tuple[EngineSet, ...]
    """One for each shape."""
    reason: str

    @property
    def target(self) -> Target | None:
        """Of the first set, or None where torch renders everything."""
        return self.sets[0].target if self.sets else None

    def label(self, device: str) -> str:
        """As `/v1/models` shows it, such as `torch-cpu` or `onnx-cpu`."""
        return f"{self.target or 'torch'}-{device}"

    def find(self, shape: ClipShape) -> EngineSet | None:
        return next((found for found in self.sets if found.shape == shape), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the choice depends on besides the store."""

    revision: str
    text_tokens: int
    steps: int
    device: Literal["cpu", "cuda"]
    capability: str | None
    """Of the GPU, such as `SM89`."""
    gpu: str | None
    """Its name."""


def choose_engine(wish: Wish, store_dir: Path, situation: Situation) -> EngineChoice:
    """Pick by wish; `auto` keeps torch for every shape without a complete, verified and faster set of engines.

    Raises `EngineRefused` where the wish names an engine that cannot run here.
    """
    if wish == "torch":
        return EngineChoice(forced=False, sets=(), reason="VIDEO_ENGINE=torch")
    if wish != "auto":
        return _forced(wish, *find_sets(wish, store_dir, situation))
    faster: list[EngineSet] = []
    notes: list[str] = []
    for target in _targets_of(situation.device):
        try:
            sets, refused = find_sets(target, store_dir, situation)
        except EngineRefused as error:
            notes.append(f"{target}: {error}")
            continue
        usable = [found for found in sets if _is_faster(found, situation)]
        faster += usable
        if not usable:
            notes.append(f"{target}: {_why_not(sets, refused, situation)}")
    if not faster:
        return EngineChoice(forced=False, sets=(), reason="torch renders: " + "; ".join(notes))
    best = _best_of_each_shape(faster, lambda found: found.clip_s)
    reason = f"measured faster here and verified: {_list(best)}; torch for any other shape"
    return EngineChoice(forced=False, sets=best, reason=reason)


def find_sets(target: Target, store_dir: Path, situation: Situation) -> tuple[tuple[EngineSet, ...], list[str]]:
    """The complete verified sets for `target`, the best of each shape, and why the others are none.

    Raises `EngineRefused` where `target` cannot run here at all.
    """
    if library_version(target) is None:
        raise EngineRefused(f"its library is not installed; pip install 'stillmotion[{_EXTRAS[target]}]'")
    if (target == "onnx") != (situation.device == "cpu"):
        raise EngineRefused(f"{target} engines do not run on the device {situation.device}")
    store = EngineStore(store_dir)
    sets: list[EngineSet] = []
    refused: list[str] = []
    for manifest in store.manifests()[0]:
        recipe = manifest.recipe
        if recipe.graph != "transformer" or recipe.target != target:
            continue
        shape = ClipShape(**recipe.shape)
        try:
            _check_home(recipe, situation)
            sets.append(_complete(store, shape, recipe, situation))
        except EngineRefused as error:
            refused.append(f"{shape}: {error}")
    return _best_of_each_shape(sets, lambda found: -found.speed_up), refused


def _best_of_each_shape(sets: Iterable[EngineSet], cost: Callable[[EngineSet], float]) -> tuple[EngineSet, ...]:
    best: dict[ClipShape, EngineSet] = {}
    for found in sorted(sets, key=cost):
        best.setdefault(found.shape, found)
    return tuple(best.values())


def _is_faster(found: EngineSet, situation: Situation) -> bool:
    """Times of another GPU say nothing of this one."""
    return found.speed_up * _WORTH_IT > 1 and found.measured_on == situation.gpu


def _check_home(recipe: Recipe, situation: Situation) -> None:
    if recipe.revision != situation.revision:
        raise EngineRefused(
            f"built from other weights ({short(recipe.revision)}, not {short(situation.revision)})"
        )
    check_gpu(recipe, situation.capability)
    if recipe.shape.get("text_tokens") != situation.text_tokens:
        raise EngineRefused(f"built for {recipe.shape.get('text_tokens')} prompt tokens, not {situation.text_tokens}")


def _complete(store: EngineStore, shape: ClipShape, like: Recipe, situation: Situation) -> EngineSet:
    manifests = {
        graph: store.usable(clip_recipe(
            graph, shape, revision=like.revision, precision=like.precision, target=like.target,
            capability=like.capability,
        ))
        for graph in RENDER_GRAPHS
    }
    engine_s, torch_s = _clip_times(manifests, shape, situation.steps)
    check = manifests["transformer"].check
    return EngineSet(
        shape=shape, target=like.target, precision=like.precision, clip_s=engine_s, speed_up=torch_s / engine_s,
        recipes={name: found.recipe for name, found in manifests.items()},
        measured_on=check.gpu if check else None,
    )


def _clip_times(manifests: dict[str, Manifest], shape: ClipShape, steps: int) -> tuple[float, float]:
    """Seconds of the engines and of torch."""
    runs = {"transformer": steps, "vae_decoder_later": shape.latent_frames - 1}
    engine_s = torch_s = 0.0
    for name, manifest in manifests.items():
        assert manifest.check is not None  # it is verified
        engine_s += manifest.check.engine_s * runs.get(name, 1)
        torch_s += manifest.check.torch_s * runs.get(name, 1)
    return engine_s, torch_s


def _forced(target: Target, sets: tuple[EngineSet, ...], refused: list[str]) -> EngineChoice:
    if not sets:
        detail = "; ".join(refused) or "nothing is built for this model"
        raise EngineRefused(
            f"no complete verified set of {target} engines ({detail}). "
            f"Run `stillmotion engines build --target {target}`."
        )
    reason = f"VIDEO_ENGINE={target}: {_list(sets)}; other shapes are refused"
    return EngineChoice(forced=True, sets=sets, reason=reason)


def _targets_of(device: str) -> tuple[Target, ...]:
    return ("onnx",) if device == "cpu" else ("tensorrt", "tensorrt-rtx")


def _list(sets: tuple[EngineSet, ...]) -> str:
    return ", ".join(map(str, sets))


def _why_not(sets: tuple[EngineSet, ...], refused: list[str], situation: Situation) -> str:
    elsewhere = {found.measured_on or "another machine" for found in sets if found.measured_on != situation.gpu}
    if elsewhere:
        return f"measured on {', '.join(sorted(elsewhere))} only: run `stillmotion engines verify` on this machine"
    if sets:
        return f"torch was measured as fast or faster ({_list(sets)})"
    return "; ".join(refused) or "no engines built"


_EXTRAS = {"onnx": "engines", "tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
