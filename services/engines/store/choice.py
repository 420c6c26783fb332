"""Which engine computes which shape, decided from manifests alone, and why. Imports no model library."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal

from engines.store.manifest import EngineRefused, Manifest, Precision, Recipe, Target
from engines.store.recipes import library_version
from engines.store.shape import ShapeT

Wish = Literal["auto", "torch", "onnx", "tensorrt", "tensorrt-rtx"]

WORTH_IT = 0.97
"""Of torch's time: below the noise of one measurement, torch stays."""


@dataclass(frozen=True, kw_only=True)  # without slots, for calling X[Shape] sets one attribute more
class EngineSet(Generic[ShapeT]):
    """Every engine of one shape, verified."""

    shape: ShapeT
    target: Target
    precision: Precision
    recipes: dict[str, Recipe]
    """By graph name."""
    engine_s: float
    """Their own time for the whole of it, such as a clip, as measured when verified."""
    speed_up: float
    """Torch's time over that, on the same machine."""
    measured_on: str | None
    """Name of the GPU; None on a CPU."""

    def __str__(self) -> str:
        return f"{self.shape} {self.target} {self.precision} ({self.speed_up:.2f}x torch)"


@dataclass(frozen=True, kw_only=True)  # without slots, for calling X[Shape] sets one attribute more
class EngineChoice(Generic[ShapeT]):
    """What computes: engines for the shapes in `sets`; any other shape is torch's, or refused if `forced`."""

    forced: bool
    sets: tuple[EngineSet[ShapeT], ...]
    """One for each shape."""
    reason: str

    @property
    def target(self) -> Target | None:
        """Of the first set, or None where torch computes everything."""
        return self.sets[0].target if self.sets else None

    def label(self, device: str) -> str:
        """As `/v1/models` shows it, such as `torch-cpu` or `onnx-cpu`."""
        return f"{self.target or 'torch'}-{device}"

    def find(self, shape: ShapeT) -> EngineSet[ShapeT] | None:
        return next((found for found in self.sets if found.shape == shape), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the engines would run."""

    device: Literal["cpu", "cuda"]
    capability: str | None
    """Of the GPU, such as `SM89`."""
    gpu: str | None
    """Its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How a service speaks of its engines."""

    variable: str
    """By which it is told what to use."""
    computes: str
    """What torch does otherwise, such as `torch renders`."""
    others: str
    """What becomes of other shapes where an engine is forced."""
    build: str = "stillmotion engines build"


Found = tuple[tuple[EngineSet[ShapeT], ...], list[str]]
"""Complete verified sets, and why others are none."""
Find = Callable[[Target], Found[ShapeT]]


def choose(wish: Wish, machine: Machine, find: Find[ShapeT], wording: Wording) -> EngineChoice[ShapeT]:
    """Pick by wish; `auto` keeps torch for every shape without a complete, verified and faster set of engines.

    Args:
        find: the sets for a target that can run here.

    Raises:
        EngineRefused: the wish names an engine that cannot run here.
    """
    if wish == "torch":
        return EngineChoice(forced=False, sets=(), reason=f"{wording.variable}=torch")
    if wish != "auto":
        return _forced(wish, *find_sets(wish, machine, find), wording)
    faster: list[EngineSet[ShapeT]] = []
    notes: list[str] = []
    for target in _targets_of(machine.device):
        try:
            sets, refused = find_sets(target, machine, find)
        except EngineRefused as error:
            notes.append(f"{target}: {error}")
            continue
        usable = [found for found in sets if _is_faster(found, machine)]
        faster += usable
        if not usable:
            notes.append(f"{target}: {_why_not(sets, refused, machine)}")
    if not faster:
        return EngineChoice(forced=False, sets=(), reason=f"{wording.computes}: " + "; ".join(notes))
    best = _best_of_each_shape(faster, lambda found: found.engine_s)
    reason = f"measured faster here and verified: {_list(best)}; torch for any other shape"
    return EngineChoice(forced=False, sets=best, reason=reason)


def find_sets(target: Target, machine: Machine, find: Find[ShapeT]) -> Found[ShapeT]:
    """What `find` says, the best of each shape. Raises `EngineRefused` where `target` cannot run here at all."""
    if library_version(target) is None:
        raise EngineRefused(f"its library is not installed; pip install 'stillmotion[{_EXTRAS[target]}]'")
    if (target == "onnx") != (machine.device == "cpu"):
        raise EngineRefused(f"{target} engines do not run on the device {machine.device}")
    sets, refused = find(target)
    return _best_of_each_shape(sets, lambda found: -found.speed_up), refused


def make_set(
    shape: ShapeT, like: Recipe, manifests: Mapping[str, Manifest], runs: Mapping[str, int] | None = None
) -> EngineSet[ShapeT]:
    """Of verified engines, by graph name.

    Args:
        like: has their target and precision.
        runs: how often a graph runs, where that is not once.
    """
    checks = {name: manifest.check for name, manifest in manifests.items() if manifest.check is not None}
    assert checks.keys() == manifests.keys()  # they are verified
    times = runs or {}
    engine_s = sum(check.engine_s * times.get(name, 1) for name, check in checks.items())
    torch_s = sum(check.torch_s * times.get(name, 1) for name, check in checks.items())
    return EngineSet(
        shape=shape, target=like.target, precision=like.precision, engine_s=engine_s, speed_up=torch_s / engine_s,
        recipes={name: found.recipe for name, found in manifests.items()}, measured_on=checks[like.graph].gpu,
    )


def ready_lines(machine: Machine, find: Find[ShapeT]) -> Iterable[str]:
    """What of the store could be used here, and why the rest could not, for people."""
    for target in ("onnx", "tensorrt-rtx", "tensorrt"):
        try:
            sets, refused = find_sets(target, machine, find)
        except EngineRefused as error:
            yield f"{target}: {error}"
            continue
        for found in sets:
            yield (f"{target}: {found.shape} {found.precision} ready, {found.speed_up:.2f}x torch on "
                   f"{found.measured_on or 'the CPU'}")
        for reason in refused:
            yield f"{target}: {reason}"


def _best_of_each_shape(
    sets: Iterable[EngineSet[ShapeT]], cost: Callable[[EngineSet[ShapeT]], float]
) -> tuple[EngineSet[ShapeT], ...]:
    best: dict[ShapeT, EngineSet[ShapeT]] = {}
    for found in sorted(sets, key=cost):
        best.setdefault(found.shape, found)
    return tuple(best.values())


def _is_faster(found: EngineSet[ShapeT], machine: Machine) -> bool:
    """Times of another GPU say nothing of this one."""
    return found.speed_up * WORTH_IT > 1 and found.measured_on == machine.gpu


def _forced(
    target: Target, sets: tuple[EngineSet[ShapeT], ...], refused: list[str], wording: Wording
) -> EngineChoice[ShapeT]:
    if not sets:
        detail = "; ".join(refused) or "nothing is built for this model"
        raise EngineRefused(
            f"no complete verified set of {target} engines ({detail}). "
            f"Run `{wording.build} --target {target}`."
        )
    reason = f"{wording.variable}={target}: {_list(sets)}; {wording.others}"
    return EngineChoice(forced=True, sets=sets, reason=reason)


def _targets_of(device: str) -> tuple[Target, ...]:
    return ("onnx",) if device == "cpu" else ("tensorrt", "tensorrt-rtx")


def _list(sets: tuple[EngineSet[ShapeT], ...]) -> str:
    return ", ".join(map(str, sets))


def _why_not(sets: tuple[EngineSet[ShapeT], ...], refused: list[str], machine: Machine) -> str:
    elsewhere = {found.measured_on or "another machine" for found in sets if found.measured_on != machine.gpu}
    if elsewhere:
        return f"measured on {', '.join(sorted(elsewhere))} only: run `stillmotion engines verify` on this machine"
    if sets:
        return f"torch was measured as fast or faster ({_list(sets)})"
    return "; ".join(refused) or "no engines built"


_EXTRAS = {"onnx": "engines", "tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
