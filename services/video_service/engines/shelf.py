"""The model for each request: torch's, or the same with engines in its slots."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from contracts.refusal import ParameterRefused
from contracts.videos import VideoRequest
from engines.export.graph import dtype_of
from engines.run.sessions import SessionOptions, open_sessions
from engines.store.manifest import EngineRefused
from engines.store.store import EngineStore
from video_service.engines.choice import ClipEngines, EngineChoice
from video_service.engines.shape import ClipShape
from video_service.render.generate import Deployed
from video_service.settings import VideoSettings
from web.worker.errors import ModelUnavailable

log = logging.getLogger(__name__)

_MAX_OPEN = 2  # shapes with loaded engines; each holds its own copy of the weights


class EngineShelf:
    """Opens engines when their shape is first asked for, and keeps the last few open."""

    def __init__(self, torch_model: Deployed, choice: EngineChoice, settings: VideoSettings) -> None:
        """Raises `ModelUnavailable` if VIDEO_ENGINE forces an engine and its best set does not open."""
        self._choice = choice
        self._store = EngineStore(settings.engine_store_dir.resolve())
        self._options = SessionOptions(
            device=torch_model.device, threads=settings.threads, cuda_graphs=settings.cuda_graphs
        )
        self._torch = torch_model
        self._open: dict[ClipShape, Deployed] = {}
        self._broken: dict[ClipShape, str] = {}
        self._stream = torch.cuda.Stream(torch_model.device) if torch_model.device.type == "cuda" else None
        if self._choice.forced:
            try:
                self._opened(self._choice.sets[0])
            except EngineRefused as error:
                # Of a refusal for want of memory the cause is a MemoryError: that may pass.
                raise ModelUnavailable(f"VIDEO_ENGINE={self._choice.target}: {error}") from error.__cause__ or error

    def stream(self) -> AbstractContextManager[object]:
        """Where renders compute: on CUDA's default stream TensorRT would wait for the GPU at every call."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def model_for(self, request: VideoRequest) -> Deployed:
        """The model that renders this request.

        Raises:
            ParameterRefused: the engine is forced and there is none of this shape.
            EngineRefused: the engine is forced and does not open.
        """
        shape = ClipShape(
            width=request.width, height=request.height, num_frames=request.num_frames,
            text_tokens=self._torch.info.text_tokens,
        )
        engines = self._choice.find(shape)
        if engines is None:
            if self._choice.forced:
                raise ParameterRefused("clip_not_built", "width", self._no_engine(shape))
            return self.torch_model(self._no_engine(shape))
        if shape in self._broken:
            return self.torch_model(self._broken[shape])
        try:
            return self._opened(engines)
        except EngineRefused as error:
            if self._choice.forced:
                raise
            log.warning("engine refused, torch renders instead", extra={"shape": str(shape), "reason": str(error)})
            self._broken[shape] = f"{engines.target} was chosen and refused: {error}"
            return self.torch_model(self._broken[shape])

    def _no_engine(self, shape: ClipShape) -> str:
        built = ", ".join(str(found.shape) for found in self._choice.sets)
        wish = self._choice.target if self._choice.forced else "auto"
        return f"VIDEO_ENGINE={wish} has no engine for {shape}; it has {built}"

    def torch_model(self, reason: str) -> Deployed:
        """The model without engines, and why."""
        dtype = _dtype_name(self._torch.dtype)
        return _labelled(self._torch, engine=f"torch-{self._torch.device.type}", reason=reason, dtype=dtype)

    def _opened(self, engines: ClipEngines) -> Deployed:
        model = self._open.pop(engines.shape, None) or self._with_engines(engines)
        while len(self._open) >= _MAX_OPEN:
            self._open.pop(next(iter(self._open)))
        self._open[engines.shape] = model
        return model

    def _with_engines(self, engines: ClipEngines) -> Deployed:
        base = self._torch
        manifests = [self._store.usable(recipe) for recipe in engines.recipes.values()]
        sessions = open_sessions(self._store, manifests, self._options)
        dtype = dtype_of(engines.precision, engines.target)
        model = replace(base, model=base.model.on_engines(sessions, dtype))
        return _labelled(
            model, engine=f"{engines.target}-{base.device.type}", dtype=_dtype_name(dtype),
            reason=f"{'forced' if self._choice.forced else 'the fastest here'}: {engines}",
        )


def _labelled(model: Deployed, *, engine: str, reason: str, dtype: str) -> Deployed:
    update = {"engine": engine, "engine_reason": reason, "dtype": dtype}
    return replace(model, info=model.info.model_copy(update=update))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
