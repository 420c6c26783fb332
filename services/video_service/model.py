"""One model: found, loaded, and opened as the function that renders with it."""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from contracts.models import FrameRange, LoraInfo, ModelSpec, VideoModelInfo
from contracts.videos import RenderResult, VideoRequest
from engines.store.manifest import EngineRefused
from video_service.engines.choice import EngineChoice, Situation, choose_engine, situation_of
from video_service.families.base import Family, Layers, Placement
from video_service.families.registry import family_of
from video_service.media.badge import Badge, BadgeUnusable
from video_service.render.generate import Deployed, generate
from video_service.render.progress import Report
from video_service.settings import EngineSetting, VideoSettings
from video_service.weights.checkpoint import CheckpointFiles, open_checkpoint
from video_service.weights.device import Device, DeviceUnavailable, Dtype, pick_device, pick_dtype
from video_service.weights.lora import Lora, find_lora
from video_service.weights.memory import int8_bytes, weight_bytes
from video_service.worker.peers.group import PeerGroup
from web.worker.errors import ModelUnavailable


class Engine(Protocol):
    """What renders with the loaded model."""

    def __call__(self, request: VideoRequest, output: Path, report: Report) -> RenderResult:
        """Render into `output`; blocking. For what it raises see `render.generate.generate`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model's weights are, and all that is known of it before they are read."""

    family: Family
    files: CheckpointFiles
    device: Device
    dtype: Dtype
    situation: Situation
    engine: EngineChoice
    info: VideoModelInfo
    turns: bool = False
    """Whether the family's `take_turns` share the memory of one; `info.memory_bytes` is with it."""

    def in_turns(self) -> "ModelSource | None":
        """The same in less memory; None where nothing of it can take turns."""
        parts = self.family.take_turns
        if self.turns or not parts or self.engine.target is not None:
            return None
        spared = _weight_bytes(self.files, self.dtype, parts[1:]) or 0
        info = self.info.model_copy(update={"memory_bytes": max(0, (self.info.memory_bytes or 0) - spared) or None})
        return replace(self, turns=True, info=info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A model in memory: what it can do, and the doing."""

    info: VideoModelInfo
    engine: Engine
    torch_model: Deployed
    """Without engines in its slots."""
    stream: Callable[[], AbstractContextManager[object]] = nullcontext
    """Where a render computes."""

    def adapted(self, loras: Sequence[Lora]) -> "Opened":
        """The model with LoRAs in it, beside this one, in torch: engines have weights of their own.

        Raises `LoraUnusable`.
        """
        torch_model = self.torch_model
        info = torch_model.info.model_copy(update={
            "revision": functools.reduce(lambda revision, lora: lora.revision(revision), loras, self.info.revision),
            "loras": [LoraInfo(id=lora.id, modified_at=0.0) for lora in loras],
        })
        adapted = replace(torch_model, info=info, model=torch_model.model.adapted(loras))

        def engine(request: VideoRequest, output: Path, report: Report) -> RenderResult:
            with self.stream():
                return generate(adapted, request, output, report)

        return Opened(info=info, engine=engine, torch_model=adapted, stream=self.stream)


def open_model(settings: VideoSettings) -> Opened:
    """The one model that `settings.model` names, loaded. Raises what `find_model` and `open_source` raise."""
    return open_source(find_model(settings), settings)


def open_source(source: ModelSource, settings: VideoSettings, peers: PeerGroup | None = None) -> Opened:
    """Load the model and the engines that were chosen for it; `peers` compute its steps too where they can be split.

    Raises:
        ModelUnavailable: weights are missing, damaged or do not fit the configs, or the LoRA does not fit the weights.
            `ModelNotYetAvailable` where it may pass by itself.
    """
    model = load_model(source, settings, peers)
    if source.engine.target is None:
        return Opened(info=model.info, engine=partial(generate, model), torch_model=model)
    from video_service.engines.shelf import EngineShelf

    shelf = EngineShelf(model, source.engine, settings)

    def engine(request: VideoRequest, output: Path, report: Report) -> RenderResult:
        with shelf.stream():
            return generate(shelf.model_for(request), request, output, report)

    torch_model = shelf.torch_model("engines have weights of their own, without the request's LoRAs")
    return Opened(info=source.info, engine=engine, torch_model=torch_model, stream=shelf.stream)


def find_model(settings: VideoSettings) -> ModelSource:
    """The one model that `settings.model` names; reads no weights.

    Raises:
        ModelUnavailable: no such checkpoint, an incomplete one, one of a kind that is not supported here, no such
            device, no file at VIDEO_LORA, or VIDEO_ENGINE names an engine that cannot run. The message says what to do.
    """
    try:
        device = pick_device(settings.device)
    except DeviceUnavailable as error:
        raise ModelUnavailable(str(error)) from error
    if settings.rcm_noise == "cuda" and device != "cuda":
        raise ModelUnavailable("VIDEO_RCM_NOISE=cuda draws on a GPU, and this service computes on the CPU: unset it.")
    dtype = pick_dtype(settings.dtype, device)
    files = open_checkpoint(settings.model, settings.models_dir)
    family = family_of(files)
    spec = family.spec(files)
    lora = find_lora(settings)
    if lora is not None:
        files = replace(files, lora=lora, revision=lora.revision(files.revision))
    situation = situation_of(
        files.revision, device, text_tokens=spec.text_tokens, graphs=family.render_graphs,
        runs=partial(family.runs, spec),
    )
    try:
        engine = choose_engine(_engine_of(settings, device), settings.engine_store_dir.resolve(), situation)
    except EngineRefused as error:
        raise ModelUnavailable(f"VIDEO_ENGINE={settings.engine}: {error}") from error
    source = ModelSource(
        family=family, files=files, device=device, dtype=dtype, situation=situation, engine=engine,
        info=_info(spec, files.revision, device, dtype, engine).model_copy(
            update={"memory_bytes": None if engine.forced else _weight_bytes(
                files, dtype, ["", *_parts_of(files)], int8=lora is None and wants_int8(settings, device))}
        ),
    )
    return (source.in_turns() or source) if settings.experts == "one" else source


def _engine_of(settings: VideoSettings, device: Device) -> EngineSetting:
    """Over several GPUs torch renders. Raises `ModelUnavailable` where that, or so many GPUs, cannot be."""
    if settings.gpus == 1:
        return settings.engine
    if settings.engine not in ("auto", "torch"):
        raise ModelUnavailable(
            f"VIDEO_ENGINE={settings.engine} renders on one GPU: unset it, or VIDEO_GPUS={settings.gpus}.")
    if device == "cuda" and torch.cuda.device_count() < settings.gpus:
        raise ModelUnavailable(
            f"VIDEO_GPUS={settings.gpus}, and this process sees {torch.cuda.device_count()} GPU(s): lower it, or let "
            "CUDA_VISIBLE_DEVICES name as many.")
    return "torch"


def _parts_of(files: CheckpointFiles) -> list[str]:
    return [name for name, kind in files.find_json("model_index.json").items() if isinstance(kind, list)]


def _weight_bytes(
    files: CheckpointFiles, dtype: Dtype, parts: Sequence[str], *, int8: bool = False
) -> int | None:
    itemsize = getattr(torch, dtype).itemsize
    found = weight_bytes(files.path, parts, itemsize)
    return None if found is None else found - (itemsize - 1) * int8_bytes(files.path, parts) * int8


def load_model(source: ModelSource, settings: VideoSettings, peers: PeerGroup | None = None) -> Deployed:
    """Read the weights onto `source.device`; of a hub id, download them first.

    Where an engine is forced no weights are read, for none would be computed with, and they may not even fit.
    Raises `ModelUnavailable`.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    placement = Placement(
        device=torch.device(source.device), dtype=getattr(torch, source.dtype), weights=not source.engine.forced,
        turns=source.turns, peers=peers, rcm_noise_on_device=settings.rcm_noise == "cuda",
        layers=Layers(
            fast=settings.fast_layers, fp8=wants_fp8(settings, source.device),
            int8=wants_int8(settings, source.device), topk=settings.attention_topk,
        ),
    )
    badge = _badge(settings)
    before = 0 if peers is None else peers.transformers
    model = source.family.load(source.files, placement)
    info = source.info
    said = [info.engine_reason, model.form if source.engine.target is None else None]
    if peers is not None:
        apart = ", one of guidance's two on each" if peers.guides else ""
        said.append(f"steps over {peers.size} devices{apart}" if peers.transformers > before
                    else f"steps on one of VIDEO_GPUS={peers.size}: such a network is not split")
    info = info.model_copy(update={"engine_reason": "; ".join(filter(None, said)) or None})
    return Deployed(info=info, model=model, device=placement.device, dtype=placement.dtype, badge=badge)


def _badge(settings: VideoSettings) -> Badge | None:
    try:
        return Badge(settings.badge, settings.badge_font) if settings.badge.strip() else None
    except BadgeUnusable as error:
        raise ModelUnavailable(str(error)) from error


def wants_fp8(settings: VideoSettings, device: Device) -> bool:
    """Whether linear layers are to be in float8: by `auto` where a GPU has such products (Ada, Hopper and later)."""
    if settings.quant_linear == "auto":
        return device == "cuda" and torch.cuda.get_device_capability() >= (8, 9)
    return settings.quant_linear == "fp8"


def wants_int8(settings: VideoSettings, device: Device) -> bool:
    """Whether layers published in int8 are to stay so: by `auto` on GPUs without products in float8."""
    if settings.quant_linear == "auto":
        return device == "cuda" and not wants_fp8(settings, device)
    return settings.quant_linear == "int8"


def _info(
    spec: ModelSpec, revision: str, device: Device, dtype: Dtype, engine: EngineChoice
) -> VideoModelInfo:
    own: dict[str, object] = {"clips": []} if not engine.forced else _what_was_built(spec, engine)
    own["batches"] = spec.batches and engine.target is None  # engines are built for one clip
    precision = _DTYPE_NAMES[engine.sets[0].precision] if engine.sets else dtype
    return VideoModelInfo.model_validate(spec.model_dump() | own | {
        "revision": revision, "engine": engine.label(device), "engine_reason": engine.reason, "dtype": precision,
    })


def _what_was_built(spec: ModelSpec, engine: EngineChoice) -> dict[str, object]:
    """Sizes, frames and clips where an engine is forced: only what that was built for."""
    def rank(size: str) -> int:
        return spec.sizes.index(size) if size in spec.sizes else len(spec.sizes)

    shapes = sorted(
        (found.shape for found in engine.sets),
        key=lambda shape: (shape.num_frames != spec.num_frames.default, rank(f"{shape.width}x{shape.height}")),
    )
    frames = [shape.num_frames for shape in shapes]
    return {
        "sizes": list(dict.fromkeys(f"{shape.width}x{shape.height}" for shape in shapes)),
        "num_frames": FrameRange(
            minimum=min(frames), maximum=max(frames), default=frames[0], step=spec.num_frames.step
        ),
        "clips": list(map(str, shapes)),
    }


_DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp8": "float8", "int8": "int8"}
