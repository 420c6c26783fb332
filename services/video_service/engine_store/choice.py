"""Which engine renders which clip shape, decided from manifests alone, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from video_service.engine_store.manifest import EngineRefused, Manifest, Precision, Recipe, Target
from video_service.engine_store.recipes import RENDER_GRAPHS, library_version, make_recipe
from video_service.engine_store.shape import ClipShape
from video_service.engine_store.store import EngineStore

Wish = Literal["auto", "torch", "onnx", "tensorrt", "tensorrt-rtx"]

_WORTH_IT = 0.97  # of torch's time: below the noise of one measurement, torch stays


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSet:
    """Every engine of one clip shape, verified."""

    shape: ClipShape
    precision: Precision
    recipes: dict[str, Recipe]
    """By graph name."""
    speed_up: float
    """Torch's time over the engine's, of one clip with the model's default steps, as measured when verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """What renders: `target`'s engines for the shapes in `sets`; any other shape is torch's, or refused if `forced`."""

    target: Target | None
    forced: bool
    sets: tuple[EngineSet, ...]
    reason: str

    def label(self, device: str) -> str:
        """As `/v1/models` shows it, such as `torch-cpu` or `onnx-cpu`."""
        return f"torch-{device}" if self.target is None else f"{self.target}-{device}"

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


def choose_engine(wish: Wish, store_dir: Path, situation: Situation) -> EngineChoice:
    """Pick by wish; `auto` keeps torch for every shape without a complete, verified and faster set of engines.

    Raises `EngineRefused` where the wish names an engine that cannot run here.
    """
    if wish == "torch":
        return _torch("VIDEO_ENGINE=torch")
    targets: tuple[Target, ...] = (wish,) if wish != "auto" else _targets_of(situation.device)
    notes: list[str] = []
    for target in targets:
        try:
            sets, refused = find_sets(target, store_dir, situation)
        except EngineRefused as error:
            if wish != "auto":
                raise
            notes.append(f"{target}: {error}")
            continue
        if wish != "auto":
            return _forced(target, sets, refused)
        faster = tuple(found for found in sets if found.speed_up * _WORTH_IT > 1)
        if faster:
            return EngineChoice(target=target, forced=False, sets=faster, reason=f"{target} for {_list(faster)}, "
                                "verified and measured faster; torch for any other shape")
        notes.append(f"{target}: {_why_not(sets, refused)}")
    return _torch("; ".join(notes))


def find_sets(target: Target, store_dir: Path, situation: Situation) -> tuple[tuple[EngineSet, ...], list[str]]:
    """The complete verified sets for `target`, and why the others are none.

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
    sets.sort(key=lambda found: found.speed_up, reverse=True)
    return tuple({found.shape: found for found in reversed(sets)}.values()), refused


def _check_home(recipe: Recipe, situation: Situation) -> None:
    if recipe.revision != situation.revision:
        raise EngineRefused(f"built from other weights ({recipe.revision[:12]}, not {situation.revision[:12]})")
    if recipe.capability != situation.capability:
        raise EngineRefused(f"built for {recipe.capability}, and this GPU is {situation.capability}")
    if recipe.shape.get("text_tokens") != situation.text_tokens:
        raise EngineRefused(f"built for {recipe.shape.get('text_tokens')} prompt tokens, not {situation.text_tokens}")


def _complete(store: EngineStore, shape: ClipShape, like: Recipe, situation: Situation) -> EngineSet:
    manifests = {
        graph: store.usable(make_recipe(
            graph, shape, revision=like.revision, precision=like.precision, target=like.target,
            capability=like.capability,
        ))
        for graph in RENDER_GRAPHS
    }
    return EngineSet(
        shape=shape, precision=like.precision, recipes={name: found.recipe for name, found in manifests.items()},
        speed_up=_speed_up(manifests, shape, situation.steps),
    )


def _speed_up(manifests: dict[str, Manifest], shape: ClipShape, steps: int) -> float:
    runs = {"transformer": steps, "vae_decoder_later": shape.latent_frames - 1}
    torch_s = engine_s = 0.0
    for name, manifest in manifests.items():
        assert manifest.check is not None  # it is verified
        torch_s += manifest.check.torch_s * runs.get(name, 1)
        engine_s += manifest.check.engine_s * runs.get(name, 1)
    return torch_s / engine_s


def _forced(target: Target, sets: tuple[EngineSet, ...], refused: list[str]) -> EngineChoice:
    if not sets:
        detail = "; ".join(refused) or "nothing is built for this model"
        raise EngineRefused(
            f"no complete verified set of {target} engines ({detail}). "
            f"Run `stillmotion engines build --target {target}`."
        )
    reason = f"VIDEO_ENGINE={target}: {_list(sets)}; other shapes are refused"
    return EngineChoice(target=target, forced=True, sets=sets, reason=reason)


def _torch(reason: str) -> EngineChoice:
    return EngineChoice(target=None, forced=False, sets=(), reason=reason)


def _targets_of(device: str) -> tuple[Target, ...]:
    return ("onnx",) if device == "cpu" else ("tensorrt-rtx", "tensorrt")


def _list(sets: tuple[EngineSet, ...]) -> str:
    return ", ".join(f"{found.shape} ({found.speed_up:.2f}x torch)" for found in sets)


def _why_not(sets: tuple[EngineSet, ...], refused: list[str]) -> str:
    if sets:
        return f"torch was measured as fast or faster ({_list(sets)})"
    return "; ".join(refused) or "no engines built"


_EXTRAS = {"onnx": "engines", "tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
