"""What was asked and what a model can do → what will be rendered, or a refusal that names what would work.

Pure, and the same for the gateway, which answers callers, and for the video service, which trusts nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.jobs import GenerateOptions
from contracts.models import AbsentModel, FloatRange, IntRange, ModelSpec, Sampler, VideoModelInfo
from contracts.refusal import ParameterRefused
from contracts.sizes import Size, size_of
from contracts.videos import VideoRequest

_SHARED_FIELDS = {
    "width", "height", "num_frames", "fps", "sampler", "steps", "guidance_scale", "guidance_scale_2", "loras",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How latents are denoised."""

    sampler: Sampler
    steps: int
    guidance_scale: float
    guidance_scale_2: float | None = None
    """Of the second expert; None for a model without one."""

    @property
    def is_guided(self) -> bool:
        """Whether any step looks at the negative prompt too."""
        return max(self.guidance_scale, self.guidance_scale_2 or 1.0) > 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Every parameter of a render, but for its words, its image and its seed."""

    width: int
    height: int
    num_frames: int
    fps: int
    sampling: Sampling


def find_model(
    wanted: str | None, models: Sequence[VideoModelInfo], absent: Sequence[AbsentModel] = ()
) -> VideoModelInfo:
    """The model of that id, or the first one. Raises `ParameterRefused`, with the ids there are."""
    for model in models:
        if wanted in (None, model.id):
            return model
    known = ", ".join(model.id for model in models)
    for model in absent:
        if model.id == wanted:
            said = model.reason.rstrip(".")
            raise ParameterRefused("model_absent", "model", f"{wanted} is absent: {said}. Or use one of: {known}.")
    raise ParameterRefused("unknown_model", "model", f"There is no model {wanted!r} here; use one of: {known}.")


def resolve(
    options: GenerateOptions, model: VideoModelInfo, image_size: Size | None, *, to_last_image: bool = False
) -> Resolved:
    """Every parameter of the render; `image_size` is None for words alone, `to_last_image` says that it has an end too.

    Raises:
        ParameterRefused: for the first parameter that cannot be served.
    """
    _check_task(model, image_size is not None, to_last_image)
    _check_loras(options, model)
    size = size_of(options, model, image_size)
    fps = model.fps.default if options.fps is None else options.fps
    if not model.fps.minimum <= fps <= model.fps.maximum:
        raise ParameterRefused("fps_out_of_range", "fps", advice("fps", model))
    num_frames = _num_frames_of_a_clip(options, model, size, _num_frames(options, model, fps))
    return Resolved(
        width=size[0], height=size[1], num_frames=num_frames, fps=fps, sampling=_sampling(options, model)
    )


def _check_task(model: ModelSpec, from_image: bool, to_last_image: bool) -> None:
    if to_last_image:
        if "flf2v" not in model.tasks:
            raise ParameterRefused(
                "task_not_supported", "last_image", f"{model.id} takes no last picture: leave `last_image` out.")
        if not from_image:
            raise ParameterRefused("task_not_supported", "image", "`last_image` goes with `image`: send both.")
        return
    if ("i2v" if from_image else "t2v") in model.tasks:
        return
    if from_image and "flf2v" in model.tasks:
        raise ParameterRefused(
            "task_not_supported", "last_image", f"{model.id} animates between two pictures: send `last_image` too.")
    wanted = "works from words alone: leave the picture out" if from_image else "animates a picture: send one"
    raise ParameterRefused("task_not_supported", "image", f"{model.id} {wanted}.")


def resolve_request(request: VideoRequest, model: VideoModelInfo) -> Resolved:
    """The same for a request of the inner wire. Raises `ParameterRefused`."""
    find_model(request.model, [model])
    if request.extends is not None and request.image is None:
        raise ParameterRefused("task_not_supported", "image", "`extends` goes with its last frame as `image`.")
    fields = request.model_dump(include=_SHARED_FIELDS)
    size = None if request.image is None else (request.width, request.height)
    return resolve(
        GenerateOptions.model_validate(fields), model, size, to_last_image=request.last_image is not None)


def _check_loras(options: GenerateOptions, model: VideoModelInfo) -> None:
    if options.loras and model.clips:
        raise ParameterRefused(
            "loras_not_supported", "loras", f"{model.id} renders on engines that hold its own weights: leave them out.")
    known = {lora.id: lora for lora in model.loras}
    there = f"there are: {', '.join(known)}" if known else "there are none: the folder VIDEO_LORAS holds them"
    for index, wanted in enumerate(options.loras):
        if wanted.id not in known:
            raise ParameterRefused("unknown_lora", "loras", f"There is no LoRA {wanted.id!r} here; {there}.")
        if wanted.id in [other.id for other in options.loras[:index]]:
            raise ParameterRefused("lora_given_twice", "loras", f"Name {wanted.id} once, with the sum of the scales.")
        if problem := known[wanted.id].problem:
            raise ParameterRefused("lora_does_not_fit", "loras", f"{problem} Leave it out, or choose another model.")


def _sampling(options: GenerateOptions, model: ModelSpec) -> Sampling:
    """The sampler and what goes with it. Raises `ParameterRefused`."""
    sampler = options.sampler or model.samplers[0]
    if sampler not in model.samplers:
        raise ParameterRefused("unknown_sampler", "sampler", advice("sampler", model))
    limits = _steps_of(sampler, model)
    steps = limits.default if options.steps is None else options.steps
    if not limits.minimum <= steps <= limits.maximum:
        raise ParameterRefused(
            "steps_out_of_range", "steps",
            f"With the {sampler} sampler {model.id} takes {limits.minimum} to {limits.maximum} steps.",
        )
    guidance, guidance_2 = _guidance(options, sampler, model)
    return Sampling(sampler=sampler, steps=steps, guidance_scale=guidance, guidance_scale_2=guidance_2)


def advice(field: str, model: ModelSpec) -> str:
    """What `model` takes for a field, as a sentence; empty where nothing useful can be said."""
    frames, steps, guidance = model.num_frames, model.steps, model.guidance_scale
    scales = f"{model.id} takes a guidance scale from {guidance.minimum:g} to {guidance.maximum:g}."
    sizes = f"Sizes such as {', '.join(model.sizes)} fit {model.id}."
    return {
        "num_frames": f"{model.id} takes {frames.rule} from {frames.minimum} to {frames.maximum}, "
                      f"such as {frames.default}.",
        "seconds": f"At {model.fps.default} frames a second {model.id} makes {frames.minimum / model.fps.default:.2f} "
                   f"to {frames.maximum / model.fps.default:.2f} seconds.",
        "fps": f"{model.id} takes {model.fps.minimum} to {model.fps.maximum} frames a second.",
        "steps": f"{model.id} takes {steps.minimum} to {steps.maximum} steps.",
        "guidance_scale": scales, "guidance_scale_2": scales,
        "sampler": f"{model.id} takes {', '.join(model.samplers)}.",
        "size": sizes, "width": sizes, "height": sizes,
    }.get(field, "")


def _num_frames(options: GenerateOptions, model: ModelSpec, fps: int) -> int:
    limits = model.num_frames
    if options.seconds is not None:
        if options.num_frames is not None:
            raise ParameterRefused("duration_given_twice", "seconds", "Send either `seconds` or `num_frames`.")
        frames = limits.nearest(options.seconds * fps)
        if not limits.takes(frames):
            raise ParameterRefused(
                "seconds_out_of_range", "seconds",
                f"At {fps} frames a second {model.id} makes {limits.minimum / fps:.2f} to "
                f"{limits.maximum / fps:.2f} seconds.{_longer(frames, model)}",
            )
        return frames
    wanted = limits.default if options.num_frames is None else options.num_frames
    if not limits.takes(wanted):
        below = limits.minimum + (wanted - limits.minimum) // limits.step * limits.step
        near = sorted({min(max(frames, limits.minimum), limits.maximum) for frames in (below, below + limits.step)})
        raise ParameterRefused(
            "num_frames_not_usable", "num_frames",
            f"{advice('num_frames', model)} Nearest to {wanted}: {' or '.join(map(str, near))}."
            f"{_longer(wanted, model)}",
        )
    return wanted


def _longer(num_frames: int, model: ModelSpec) -> str:
    """How a clip can be longer than the model was taught, where that is what was wanted."""
    if num_frames <= model.num_frames.maximum or "i2v" not in model.tasks:
        return ""
    return " For a longer video go on from this one: `extend_from` with its job's id."


def _num_frames_of_a_clip(options: GenerateOptions, model: VideoModelInfo, size: Size, num_frames: int) -> int:
    """`num_frames`, or where none were asked for those that this size was built with."""
    if not model.clips:
        return num_frames
    name = f"{size[0]}x{size[1]}"
    built = [int(clip.rpartition("x")[2]) for clip in model.clips if clip.startswith(f"{name}x")]
    if num_frames in built:
        return num_frames
    if built and options.num_frames is None and options.seconds is None:
        return built[0]
    field = "num_frames" if built else "size"
    raise ParameterRefused(
        "clip_not_built", field,
        f"{model.id} has no engine for {name}x{num_frames} here; it renders {', '.join(model.clips)} "
        "(width x height x frames).",
    )


def _steps_of(sampler: Sampler, model: ModelSpec) -> IntRange:
    own = model.sampler_steps.get(sampler, model.steps)
    maximum = min(own.maximum, model.steps.maximum)
    return IntRange(
        minimum=max(own.minimum, model.steps.minimum), maximum=maximum, default=min(model.steps.default, maximum)
    )


def _guidance(options: GenerateOptions, sampler: Sampler, model: ModelSpec) -> tuple[float, float | None]:
    """The first expert's, which may be the only one, and the second's: by default the same if that was asked for."""
    first, second = options.guidance_scale, options.guidance_scale_2
    if second is not None and model.guidance_scale_2 is None:
        raise ParameterRefused("guidance_not_supported", "guidance_scale_2", f"{model.id} has no second expert.")
    if sampler in model.unguided_samplers:
        for field, wanted in (("guidance_scale", first), ("guidance_scale_2", second)):
            if wanted not in (None, 1.0):
                raise ParameterRefused(
                    "guidance_not_supported", field,
                    f"The {sampler} sampler takes no guidance: use 1 or leave it out.",
                )
        return 1.0, None if model.guidance_scale_2 is None else 1.0
    one = _guidance_of("guidance_scale", first, model.guidance_scale, model)
    if model.guidance_scale_2 is None:
        return one, None
    return one, _guidance_of("guidance_scale_2", first if second is None else second, model.guidance_scale_2, model)


def _guidance_of(field: str, wanted: float | None, limits: FloatRange, model: ModelSpec) -> float:
    guidance = limits.default if wanted is None else wanted
    if not limits.minimum <= guidance <= limits.maximum:
        raise ParameterRefused("guidance_out_of_range", field, advice(field, model))
    return guidance
