"""The models of this deployment: which there are, which are in memory, and the one that renders a request."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from contracts.models import AbsentModel, LoraInfo, VideoModelInfo, VideoModelList
from contracts.refusal import ParameterRefused
from contracts.resolve import find_model
from contracts.videos import RenderResult, VideoRequest
from video_service import model as one_model
from video_service.model import ModelSource, Opened, open_source
from video_service.render.generate import generate_together
from video_service.render.progress import Report
from video_service.render.render import Left
from video_service.render.warm_up import warm_up
from video_service.settings import VideoSettings
from video_service.weights.checkpoint import public_id
from video_service.weights.device import Device
from video_service.weights.held import device_bytes, give_back, held_bytes
from video_service.weights.host import HostCopies
from video_service.weights.lora import Lora, LoraFolder
from video_service.weights.lora_merge import LoraUnusable
from video_service.weights.memory import in_words, machine_bytes
from video_service.weights.residency import Residency
from video_service.worker.peers.group import PeerGroup
from web.worker.errors import ModelNotYetAvailable, ModelUnavailable
from web.worker.faults import breaks_the_device, is_out_of_memory, why_not_loaded

log = logging.getLogger(__name__)

_ADAPTED_KEPT = 4  # models with LoRAs by request in them
_HOST_SHARE = 0.5  # of the machine's memory, for copies of what leaves the device
_SHARE = 0.85  # of the memory for weights; the rest is for what a render computes
Tell = Callable[[VideoModelList], None]
Rendered = TypeVar("Rendered")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Absence:
    """Why a name in VIDEO_MODELS is no model to render with; `may_pass`: looking again may find it."""

    told: AbsentModel
    error: Exception
    may_pass: bool


class _Unforeseen(ModelUnavailable):
    """Loading raised `error`, which no loader should."""

    def __init__(self, error: Exception) -> None:
        super().__init__(why_not_loaded(error))
        self.error = error


class Deployment:
    """Every model of VIDEO_MODELS within one budget of memory. Used on one thread; renders one request at a time."""

    def __init__(self, settings: VideoSettings) -> None:
        self._settings = settings
        self._names = settings.model_names
        self._sources: dict[str, ModelSource] = {}  # by the name in VIDEO_MODELS, as the absent ones
        self._absent: dict[str, _Absence] = {}
        # Where the device's memory is the machine's, a copy would take the room of what it was made for.
        self._host = HostCopies(int(machine_bytes() * _HOST_SHARE)) if len(self._names) > 1 else None
        self._peers: PeerGroup | None = None
        self._loras = LoraFolder(settings.loras_dir)
        self._misfits: dict[str, dict[str, LoraInfo]] = {}  # by the model's id and the LoRA's
        self._infos: dict[str, VideoModelInfo] = {}  # by id, as it was last loaded
        budget = settings.memory_budget or int(device_bytes() * _SHARE)
        self._residency: Residency[Opened] = Residency(budget, give_back)
        self.look_again()

    def load_first(self) -> None:
        """Load the default model, or where that cannot be, the first that can.

        Raises the error of the only model; of several `ModelUnavailable`, or `ModelNotYetAvailable` where one's may
        pass, with all reasons.
        """
        errors = {name: absence.error for name, absence in self._absent.items()}
        for name in list(self._sources):
            try:
                with self._opened(name) as opened:
                    self._warm_up(opened)
                    return
            except ModelUnavailable as error:
                errors[name] = error.error if isinstance(error, _Unforeseen) else error
        if len(errors) == 1:
            raise next(iter(errors.values()))
        passes = any(map(_may_pass, errors.values()))
        raise (ModelNotYetAvailable if passes else ModelUnavailable)(" ".join(map(why_not_loaded, errors.values())))

    def _warm_up(self, opened: Opened) -> None:
        """On a GPU the first render of a size takes seconds to minutes more than the next."""
        if not self._settings.warm_up or opened.torch_model.device.type != "cuda":
            return
        try:
            log.info("warmed up", extra={"model": opened.info.id, "seconds": round(
                warm_up(opened.engine, opened.info), 1)})
        except Exception as error:  # requests of other sizes may still be served
            if breaks_the_device(error):
                raise
            log.warning("the render to warm up failed", exc_info=error)

    def close(self) -> None:
        """End the processes that compute with this one; nothing is rendered after it."""
        if self._peers is not None:
            self._peers.close()

    def models(self) -> VideoModelList:
        """What there is now, in the order of VIDEO_MODELS."""
        return VideoModelList(
            data=[self._told(self._sources[name]) for name in self._names if name in self._sources],
            absent=[self._absent[name].told for name in self._names if name in self._absent],
        )

    def look_again(self) -> VideoModelList:
        """Look for what was never found, or may be there by now."""
        for name in self._names:
            known = self._absent.get(name)
            if name not in self._sources and (known is None or known.may_pass):
                self._find(name)
        return self.models()

    def render(self, request: VideoRequest, output: Path, report: Report, tell: Tell) -> RenderResult:
        """Render with the model that is asked for; `tell` hears of it where that changes what is loaded.

        Raises what `render.generate.generate` raises, and `ModelUnavailable` where the model cannot be loaded.
        """
        return self._with_model(request, tell, lambda opened, loras: self._rendered(
            opened, loras, request, output, report))

    def render_together(
        self, clips: Sequence[tuple[VideoRequest, Path]], report: Report, tell: Tell, left: Left
    ) -> list[RenderResult | None]:
        """Render clips that differ in words, pictures and seed alone, in torch; None for each that has `left`."""
        def together(opened: Opened, loras: Sequence[Lora]) -> list[RenderResult | None]:
            with self._adapted(opened, loras) as adapted, adapted.stream():
                return generate_together(adapted.torch_model, clips, report, left)

        return self._with_model(clips[0][0], tell, together)

    def _with_model(
        self, request: VideoRequest, tell: Tell, do: Callable[[Opened, Sequence[Lora]], Rendered]
    ) -> Rendered:
        """What `do` does with the model and the LoRAs that the request asks for."""
        models = self.models()
        wanted = find_model(request.model, models.data, models.absent).id
        loras = self._loras.find(request.loras) if request.loras else ()
        name = next(name for name, source in self._sources.items() if source.info.id == wanted)
        was_loaded, began = (wanted,) in self._residency, time.monotonic()
        try:
            with self._opened(name) as opened:
                load_s = time.monotonic() - began
                if not was_loaded:
                    tell(self.models())
                result = do(opened, loras)
        except LoraUnusable as error:
            self._note_misfit(wanted, error)
            tell(self.models())
            raise ParameterRefused("lora_does_not_fit", "loras", str(error)) from error
        except ModelUnavailable:
            tell(self.models())
            raise
        if isinstance(result, RenderResult) and not was_loaded:
            return _with_load_time(result, load_s)
        return result

    def _rendered(
        self, opened: Opened, loras: Sequence[Lora], request: VideoRequest, output: Path, report: Report
    ) -> RenderResult:
        """Where memory ends while models lie idle in it, once more without those."""

        def render() -> RenderResult:
            with self._adapted(opened, loras) as adapted:
                return adapted.engine(request, output, report)

        try:
            return render()
        except Exception as error:
            if not is_out_of_memory(error) or not self._residency.drop_unused():
                raise
            log.warning("out of memory: the models that are not in use go, and the render begins again")
        return render()

    @contextmanager
    def _adapted(self, opened: Opened, loras: Sequence[Lora]) -> Iterator[Opened]:
        """The model with these LoRAs in it; the last few such are kept. Raises `LoraUnusable`."""
        if not loras:
            yield opened
            return
        key = (opened.info.id, *(f"{lora.digest}@{lora.scale!r}" for lora in loras))
        others = [known for known in self._residency.keys if len(known) > 1 and known != key]
        for oldest in others[: max(0, len(others) - _ADAPTED_KEPT + 1)]:
            self._residency.drop(oldest)

        def merge() -> tuple[Opened, int]:
            adapted = opened.adapted(loras)
            return adapted, held_bytes(adapted.torch_model.model, beside=opened.torch_model.model)

        with self._residency.using(key, 0, merge) as adapted:
            yield adapted

    def _note_misfit(self, model: str, error: LoraUnusable) -> None:
        for known in self._loras.listed():
            if known.id == error.lora.id:
                self._misfits.setdefault(model, {})[known.id] = known.model_copy(update={"problem": str(error)})

    @contextmanager
    def _opened(self, name: str) -> Iterator[Opened]:
        """The model in memory. Raises `ModelUnavailable`, after which it is absent unless that may pass."""
        info = self._sources[name].info
        with self._residency.using((info.id,), info.memory_bytes or 0, lambda: self._load(name)) as opened:
            yield opened

    def _load(self, name: str) -> tuple[Opened, int]:
        source = self._sources[name]
        try:
            opened = open_source(source, self._settings_of(name), self._peers_on(source.device))
        except Exception as error:  # whatever one model's files raise, the others render
            if breaks_the_device(error):
                raise
            if not _may_pass(error):
                self._note_absent(name, error, source.info.memory_bytes)
            if isinstance(error, ModelUnavailable):
                raise
            raise _Unforeseen(error) from error
        num_bytes = held_bytes(opened.torch_model.model)
        self._infos[source.info.id] = opened.info.model_copy(update={"memory_bytes": num_bytes or None})
        return opened, num_bytes

    def _peers_on(self, device: Device) -> PeerGroup | None:
        """Those of VIDEO_GPUS, started with the first model: they import while it is read."""
        if self._peers is None and self._settings.gpus > 1:
            self._peers = PeerGroup(
                self._settings.gpus, device, threads=self._settings.threads, decodes=self._settings.gpus_decode,
                guides=self._settings.gpus_guidance, deadline_s=self._settings.gpus_timeout_s)
        return self._peers

    def _settings_of(self, name: str) -> VideoSettings:
        return self._settings.model_copy(update={"model": name, "models": ()})

    def _find(self, name: str) -> None:
        try:
            source = one_model.find_model(self._settings_of(name))
            if self._settings.lora is not None and len(self._names) > 1:
                raise ModelUnavailable("VIDEO_LORA is for a deployment with one model; unset it, or name LoRAs with "
                                       "each request from the folder VIDEO_LORAS.")
            if source.info.id in [other.info.id for other in self._sources.values()]:
                raise ModelUnavailable(f"{name} is called {source.info.id} as another model is; give it another `id` "
                                       "in its stillmotion.json.")
            source = self._fitting(source)
        except Exception as error:  # as above
            self._note_absent(name, error)
            return
        self._absent.pop(name, None)
        if self._host is not None and source.device == "cuda":
            source = replace(source, files=replace(source.files, host=self._host))
        self._sources[name] = source

    def _fitting(self, source: ModelSource) -> ModelSource:
        """As it is, or with parts that take turns where only so it fits. Raises `ModelUnavailable`."""
        needed, budget = source.info.memory_bytes or 0, self._residency.budget
        if needed > budget:
            if self._settings.experts == "auto" and source.device == "cuda" and (lighter := source.in_turns()):
                return self._fitting(lighter)
            raise ModelUnavailable(
                f"{source.info.id} needs {in_words(needed)} for its weights, and there are {in_words(budget)} for "
                "weights: choose a smaller model, or raise VIDEO_MEMORY_BUDGET."
            )
        return source

    def _note_absent(self, name: str, error: Exception, memory_bytes: int | None = None) -> None:
        log.error("%s cannot be used: %s", name, error,
                  exc_info=None if isinstance(error, ModelUnavailable) else error)
        source = self._sources.pop(name, None)
        told = AbsentModel(
            id=public_id(name) if source is None else source.info.id, reason=why_not_loaded(error),
            memory_bytes=memory_bytes)
        self._absent[name] = _Absence(told=told, error=error, may_pass=source is None and _may_pass(error))

    def _told(self, source: ModelSource) -> VideoModelInfo:
        info = self._infos.get(source.info.id, source.info)
        is_loaded = (info.id,) in self._residency
        misfits = list(self._misfits.get(info.id, {}).values())
        return info.model_copy(update={"state": "loaded" if is_loaded else "loadable", "loras": misfits})


def _with_load_time(result: RenderResult, load_s: float) -> Any:
    timings = {"load": round(load_s, 4)} | result.timings
    timings["total"] = round(timings.get("total", 0.0) + load_s, 4)
    return result.model_copy(update={"timings": timings})


def _may_pass(error: BaseException) -> bool:
    """Whether the same may be found, or loaded, later with nothing changed."""
    return isinstance(error, ModelNotYetAvailable) or is_out_of_memory(error) or is_out_of_memory(error.__cause__)


def open_models(settings: VideoSettings) -> Deployment:
    """Find all models, and load the first. Raises `ModelUnavailable` where there is none to render with."""
    deployment = Deployment(settings)
    deployment.load_first()
    return deployment
