"""Which model this deployment renders with, and which requests it takes.

Imports no model library: the HTTP process answers `/v1/models` and refuses bad requests from a checkpoint's JSON files.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from contracts.models import IntRange, Sampler, VideoModelInfo
from contracts.videos import VideoRequest
from engine_store.manifest import EngineRefused
from video_service.engines.choice import EngineChoice, choose_engine, situation_of
from video_service.settings import VideoSettings
from video_service.weights.card import ModelCard, read_card
from video_service.weights.checkpoint import CheckpointFolder, ModelUnavailable, open_checkpoint
from video_service.weights.device import Device, DeviceUnavailable, Dtype, pick_device, pick_dtype
from video_service.weights.lora import Lora, find_lora

RCM_SAMPLERS: frozenset[Sampler] = frozenset({"ode", "sde"})
MAX_RCM_STEPS = 4


class RequestRefused(ValueError):
    """A request that this model cannot serve: `field` is the culprit, `message` says what to use instead."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model's weights are and all that is known of it before loading them. Picklable."""

    id: str
    folder: Path
    """Folder with the JSON files; of a hub id, the local snapshot (its weights come with `load_model`)."""
    hub_id: str | None
    revision: str
    """With `lora` in it: see `video_service.weights.lora`."""
    lora: Lora | None
    """To be merged into the transformer's weights."""
    device: Device
    dtype: Dtype
    flow_shift: float
    max_sequence_length: int
    engine: EngineChoice
    info: VideoModelInfo


def find_model(settings: VideoSettings) -> ModelSource:
    """The one model that `settings.model` names.

    Raises:
        ModelUnavailable: no such checkpoint, an incomplete one, one of a kind that is not supported here, no such
            device, no file at VIDEO_LORA, or VIDEO_ENGINE names an engine that cannot run. The message says what to do.
    """
    try:
        device = pick_device(settings.device)
    except DeviceUnavailable as error:
        raise ModelUnavailable(str(error)) from error
    dtype = pick_dtype(settings.dtype, device)
    folder = open_checkpoint(settings.model, settings.models_dir)
    card = read_card(folder)
    lora = find_lora(settings)
    if lora is not None:
        folder = replace(folder, revision=lora.revision(folder.revision))
    engine = _choose_engine(settings, folder, card, device)
    return ModelSource(
        id=card.id, folder=folder.path, hub_id=folder.hub_id, revision=folder.revision, lora=lora,
        device=device, dtype=dtype, flow_shift=card.flow_shift, max_sequence_length=card.max_sequence_length,
        engine=engine, info=_model_info(folder, card, device, dtype, engine),
    )


def _choose_engine(settings: VideoSettings, folder: CheckpointFolder, card: ModelCard, device: Device) -> EngineChoice:
    situation = situation_of(
        folder.revision, device, text_tokens=card.max_sequence_length, steps=card.steps.default)
    try:
        return choose_engine(settings.engine, settings.engine_store_dir.resolve(), situation)
    except EngineRefused as error:
        raise ModelUnavailable(f"VIDEO_ENGINE={settings.engine}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the latents are denoised."""

    sampler: Sampler
    steps: int
    guidance_scale: float


def resolve_sampling(request: VideoRequest, info: VideoModelInfo) -> Sampling:
    """The request's sampling fields, with the model's default for each that is `None`."""
    sampler = request.sampler or info.samplers[0]
    rcm = sampler in RCM_SAMPLERS
    steps, guidance_scale = request.steps, request.guidance_scale
    if steps is None:
        steps = min(info.steps.default, MAX_RCM_STEPS) if rcm else info.steps.default
    if guidance_scale is None:
        guidance_scale = 1.0 if rcm else info.guidance_scale.default
    return Sampling(sampler=sampler, steps=steps, guidance_scale=guidance_scale)


def check_request(request: VideoRequest, info: VideoModelInfo) -> None:
    """Raise `RequestRefused` for the first field that the model cannot serve."""
    if request.model not in (None, info.id):
        raise RequestRefused("model", f"there is no model {request.model!r} here; use {info.id!r} or leave it out")
    _check_task(request, info)
    _check_size(request, info)
    _check_range("num_frames", request.num_frames, info.num_frames.minimum, info.num_frames.maximum)
    _check_clip(request, info)
    _check_range("fps", request.fps, info.fps.minimum, info.fps.maximum)
    _check_sampling(request, info)


def _check_task(request: VideoRequest, info: VideoModelInfo) -> None:
    if request.image is None and "t2v" not in info.tasks:
        raise RequestRefused("image", f"{info.id} animates a picture: send one")
    if request.image is not None and "i2v" not in info.tasks:
        raise RequestRefused("image", f"{info.id} works from words alone: leave the picture out")


def _check_size(request: VideoRequest, info: VideoModelInfo) -> None:
    advice = f"recommended sizes are {', '.join(info.sizes)}"
    for field, side in (("width", request.width), ("height", request.height)):
        if side % info.size_multiple:
            below = max(info.size_multiple, side // info.size_multiple * info.size_multiple)
            above = below + info.size_multiple
            raise RequestRefused(field, f"must be a multiple of {info.size_multiple}: use {below} or {above}; {advice}")
        if side < info.min_side:
            raise RequestRefused(field, f"must be at least {info.min_side} pixels; {advice}")
    if request.width * request.height > info.max_pixels:
        raise RequestRefused(
            "width", f"{request.width}x{request.height} is above this model's {info.max_pixels} pixels; {advice}"
        )


def _check_clip(request: VideoRequest, info: VideoModelInfo) -> None:
    clip = f"{request.width}x{request.height}x{request.num_frames}"
    if info.clips and clip not in info.clips:
        field = "num_frames" if f"{request.width}x{request.height}" in info.sizes else "width"
        raise RequestRefused(field, f"there is no engine for {clip}, and {info.engine} is forced here; "
                                    f"it renders {', '.join(info.clips)}")


def _check_sampling(request: VideoRequest, info: VideoModelInfo) -> None:
    if request.sampler is not None and request.sampler not in info.samplers:
        raise RequestRefused("sampler", f"{info.id} takes {', '.join(info.samplers)}")
    sampling = resolve_sampling(request, info)
    _check_range("steps", sampling.steps, info.steps.minimum, info.steps.maximum)
    _check_range("guidance_scale", sampling.guidance_scale, info.guidance_scale.minimum, info.guidance_scale.maximum)
    if sampling.sampler in RCM_SAMPLERS:
        if sampling.steps > MAX_RCM_STEPS:
            raise RequestRefused("steps", f"the {sampling.sampler} sampler takes 1 to {MAX_RCM_STEPS} steps")
        if sampling.guidance_scale > 1:
            raise RequestRefused(
                "guidance_scale", f"the {sampling.sampler} sampler takes no guidance: use 1 or leave it out"
            )


def _check_range(field: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise RequestRefused(field, f"must be from {minimum:g} to {maximum:g}, not {value:g}")


def _model_info(
    folder: CheckpointFolder, card: ModelCard, device: Device, dtype: Dtype, engine: EngineChoice
) -> VideoModelInfo:
    sizes, num_frames, clips = _what_is_rendered(card, engine)
    return VideoModelInfo(
        id=card.id, revision=folder.revision, engine=engine.label(device), engine_reason=engine.reason,
        dtype=_dtype_of(engine) or dtype, profile=card.profile,
        tasks=card.tasks, sizes=sizes, clips=clips, size_multiple=card.size_multiple, min_side=card.min_side,
        max_pixels=card.max_pixels, num_frames=num_frames, fps=card.fps, steps=card.steps,
        guidance_scale=card.guidance_scale, samplers=card.samplers,
    )


def _what_is_rendered(card: ModelCard, engine: EngineChoice) -> tuple[list[str], IntRange, list[str]]:
    """Sizes, frames and clips: the card's, or where an engine is forced only what that was built for."""
    if not engine.forced:
        return card.sizes, card.num_frames, []
    shapes = sorted(
        (found.shape for found in engine.sets),
        key=lambda shape: (shape.num_frames != card.num_frames.default, _rank(f"{shape.width}x{shape.height}", card)),
    )
    frames = [shape.num_frames for shape in shapes]
    sizes = dict.fromkeys(f"{shape.width}x{shape.height}" for shape in shapes)
    return list(sizes), IntRange(minimum=min(frames), maximum=max(frames), default=frames[0]), list(map(str, shapes))


def _rank(size: str, card: ModelCard) -> int:
    return card.sizes.index(size) if size in card.sizes else len(card.sizes)


def _dtype_of(engine: EngineChoice) -> str | None:
    """Of the engines that render, or None where torch does."""
    return _DTYPE_NAMES[engine.sets[0].precision] if engine.sets else None


_DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp8": "float8", "int8": "int8"}
