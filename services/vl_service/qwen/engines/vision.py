"""A picture through the engines of a Qwen-VL checkpoint's vision tower, and through torch where none is for it."""

import logging
from collections.abc import Callable

import torch

from engines.export.graph import dtype_of
from engines.run.session import Session
from engines.run.sessions import SessionOptions, open_sessions
from engines.store.choice import WORTH_IT, EngineChoice, EngineSet
from engines.store.manifest import EngineRefused
from engines.store.store import EngineStore
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.engines.choice import TowerShape
from vl_service.qwen.engines.vision_graph import layout_of, on_host, slots_needed
from vl_service.qwen.vision.features import NEVER, Features
from vl_service.qwen.vision.in_torch import TorchVision

log = logging.getLogger(__name__)

_MAX_OPEN = 2  # each holds its own copy of the tower's weights
_SMALLER = 0.85  # of the area, until the picture fits

Open = Callable[[EngineSet[TowerShape]], Session]


class EngineVision:
    """The smallest engine that holds a picture computes it.

    Where an engine is forced, pictures that none holds are made smaller; else torch computes them, and those of which
    it would be faster: an engine takes as long for a few patches as for all that it holds.
    """

    def __init__(
        self, torch_vision: TorchVision, choice: EngineChoice[TowerShape], open_engine: Open
    ) -> None:
        """Raises `EngineRefused` if an engine is forced and the largest does not open."""
        self._torch, self._choice, self._open_engine = torch_vision, choice, open_engine
        self._tower = torch_vision.tower
        self._host = on_host(self._tower.module)
        self._sets = sorted(choice.sets, key=lambda found: found.shape.patches)
        self._open: dict[TowerShape, Session] = {}
        self.engine, self.reason = choice.label(self._tower.device.type), choice.reason
        if choice.forced:
            self._session(self._sets[-1])

    def features_of(self, picture: DecodedImage, deadline: Deadline = NEVER) -> Features:
        """Raises `EngineRefused` where an engine is forced and does not run."""
        return self._torch.on_its_thread(self._seen, *self._patches(picture))

    def _seen(self, pixels: torch.Tensor, grid_thw: torch.Tensor) -> Features:
        engine = self._engine_for(grid_thw)
        if engine is None:
            return self._torch.encode(pixels, grid_thw)
        try:
            return self._run(engine, pixels, grid_thw)
        except EngineRefused as error:
            if self._choice.forced:
                raise
            log.warning("engine refused, torch sees instead", extra={"shape": str(engine.shape), "reason": str(error)})
            self._give_up(engine, str(error))
            return self._torch.encode(pixels, grid_thw)

    def _patches(self, picture: DecodedImage) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, grid_thw = self._torch.patches(picture)
        share = 1.0
        while self._choice.forced and slots_needed(self._host, grid_thw) > self._sets[-1].shape.patches:
            share *= _SMALLER  # down to one window or less, which every engine holds
            pixels, grid_thw = self._torch.patches(picture, share=share)
        return pixels, grid_thw

    def _engine_for(self, grid_thw: torch.Tensor) -> EngineSet[TowerShape] | None:
        needed, patches = slots_needed(self._host, grid_thw), int(grid_thw.prod())
        found = next((one for one in self._sets if one.shape.patches >= needed), None)
        if found is None or self._choice.forced:
            return found
        # Torch computes the picture's patches only: in proportion, or less.
        return found if found.speed_up * patches / found.shape.patches * WORTH_IT > 1 else None

    def _run(self, engine: EngineSet[TowerShape], pixels_NP: torch.Tensor, grid_thw: torch.Tensor) -> Features:
        session, dtype = self._session(engine), dtype_of(engine.precision, engine.target)
        layout = layout_of(self._host, grid_thw, engine.shape.patches, dtype=dtype)
        outputs = session.run(layout.fill(pixels_NP.to(dtype)))
        unit, tower = self._host.spatial_merge_size**2, self._tower

        def read(name: str) -> torch.Tensor:
            return layout.read(outputs[name], unit).to(tower.device, tower.dtype)

        deepstack = [read(name) for name in session.output_names if name != "features"]
        return self._torch.made(read("features"), grid_thw, deepstack)

    def _session(self, engine: EngineSet[TowerShape]) -> Session:
        session = self._open.pop(engine.shape, None) or self._open_engine(engine)
        while len(self._open) >= _MAX_OPEN:
            self._open.pop(next(iter(self._open)))
        self._open[engine.shape] = session
        return session

    def _give_up(self, engine: EngineSet[TowerShape], reason: str) -> None:
        self._sets.remove(engine)
        self._open.pop(engine.shape, None)
        self.reason = f"{self.reason}; {engine.shape} refused: {reason}"
        if not self._sets:
            self.engine = self._torch.engine


def opener(store: EngineStore, device: torch.device, threads: int) -> Open:
    """Opens engines of the store; what it makes raises `EngineRefused`."""
    options = SessionOptions(device=device, threads=threads)

    def open_engine(engine: EngineSet[TowerShape]) -> Session:
        manifests = [store.usable(recipe) for recipe in engine.recipes.values()]
        return open_sessions(store, manifests, options)[engine.shape.graph]

    return open_engine
