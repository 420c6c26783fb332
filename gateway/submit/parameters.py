"""What a caller asked and what the model can do → what will be done, or a refusal that names what would work."""

import math
import secrets
from collections.abc import Sequence

from contracts.framing import cut_in_words, share_cut, whole_size
from contracts.jobs import EffectiveParameters, GenerateOptions
from contracts.models import Sampler, VideoModelInfo, VLModelInfo

RCM_SAMPLERS: frozenset[Sampler] = frozenset({"ode", "sde"})
MAX_RCM_STEPS = 4  # rCM integrates along four fixed angles at most, and knows no guidance


class ParameterRefused(ValueError):
    """A parameter that the model cannot serve: stable `code`, the `field`, and in words what would work."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.message = message


def resolve(
    options: GenerateOptions, videos: Sequence[VideoModelInfo], vls: Sequence[VLModelInfo],
    picture_size: tuple[int, int] | None,
) -> EffectiveParameters:
    """Every parameter of the render; `picture_size` is (width, height) in pixels, `None` for words alone.

    Raises:
        ParameterRefused: for the first parameter that cannot be served.
    """
    model = find_model(options.model, videos)
    task = "t2v" if picture_size is None else "i2v"
    if task not in model.tasks:
        wanted = "animates a picture: send one" if task == "t2v" else "works from words alone: leave the picture out"
        raise ParameterRefused("task_not_supported", "image", f"{model.id} {wanted}.")
    width, height = _size(options, model, picture_size)
    fps = model.fps.default if options.fps is None else options.fps
    if not model.fps.minimum <= fps <= model.fps.maximum:
        raise ParameterRefused("fps_out_of_range", "fps", advice("fps", model))
    num_frames = _num_frames_of_a_clip(options, model, (width, height), _num_frames(options, model, fps))
    sampler, steps, guidance_scale = _sampling(options, model)
    profile = options.profile or model.profile
    _check_words(options, profile, vls)
    return EffectiveParameters(
        model=model.id, revision=model.revision, engine=model.engine, engine_reason=model.engine_reason or None,
        profile=profile, width=width, height=height, num_frames=num_frames, fps=fps, steps=steps, sampler=sampler,
        guidance_scale=guidance_scale, language=options.language,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
    )


def find_model(wanted: str | None, models: Sequence[VideoModelInfo]) -> VideoModelInfo:
    """The model of that id, or the first one; refuses an unknown id with the known ones."""
    for model in models:
        if wanted in (None, model.id):
            return model
    known = ", ".join(model.id for model in models)
    raise ParameterRefused("unknown_model", "model", f"There is no model {wanted!r} here; use one of: {known}.")


def advice(field: str, model: VideoModelInfo) -> str:
    """What `model` takes for a field, as a sentence; empty where nothing useful can be said."""
    frames, steps, guidance = model.num_frames, model.steps, model.guidance_scale
    sizes = ", ".join(model.sizes)
    return {
        "num_frames": f"{model.id} takes 4k+1 frames from {frames.minimum} to {frames.maximum}, "
                      f"such as {frames.default}.",
        "seconds": f"At {model.fps.default} frames a second {model.id} makes {frames.minimum / model.fps.default:.2f} "
                   f"to {frames.maximum / model.fps.default:.2f} seconds.",
        "fps": f"{model.id} takes {model.fps.minimum} to {model.fps.maximum} frames a second.",
        "steps": f"{model.id} takes {steps.minimum} to {steps.maximum} steps.",
        "guidance_scale": f"{model.id} takes a guidance scale from {guidance.minimum:g} to {guidance.maximum:g}.",
        "sampler": f"{model.id} takes {', '.join(model.samplers)}.",
        "size": f"Sizes such as {sizes} fit {model.id}.",
        "width": f"Sizes such as {sizes} fit {model.id}.",
        "height": f"Sizes such as {sizes} fit {model.id}.",
    }.get(field, "")


def nearest_size(width: int, height: int, model: VideoModelInfo) -> tuple[int, int]:
    """The size closest to width × height that `model` takes."""
    multiple = model.size_multiple
    smallest = math.ceil(model.min_side / multiple) * multiple
    scale = min(1.0, math.sqrt(model.max_pixels / (width * height)))
    fitted_w, fitted_h = (max(smallest, round(side * scale / multiple) * multiple) for side in (width, height))
    while fitted_w * fitted_h > model.max_pixels and max(fitted_w, fitted_h) > smallest:
        if fitted_w >= fitted_h:
            fitted_w -= multiple
        else:
            fitted_h -= multiple
    return fitted_w, fitted_h


def _size(
    options: GenerateOptions, model: VideoModelInfo, picture_size: tuple[int, int] | None
) -> tuple[int, int]:
    if (options.width is None) != (options.height is None):
        missing = "height" if options.height is None else "width"
        raise ParameterRefused("size_incomplete", missing, "`width` and `height` go together: send both or neither.")
    if options.size is not None:
        if options.width is not None:
            raise ParameterRefused("size_given_twice", "size", "Send either `size` or `width` and `height`.")
        width, height = _parse_size(options.size)
    elif options.width is not None and options.height is not None:
        width, height = options.width, options.height
    else:
        return _recommended_size(model, picture_size)
    _check_size(width, height, model)
    return width, height


def _check_size(width: int, height: int, model: VideoModelInfo) -> None:
    field, near = "size", "{}x{}".format(*nearest_size(width, height, model))
    if width % model.size_multiple or height % model.size_multiple:
        raise ParameterRefused(
            "size_not_multiple", field,
            f"{width}x{height}: {model.id} takes multiples of {model.size_multiple}; the nearest size is {near}.",
        )
    if min(width, height) < model.min_side:
        raise ParameterRefused(
            "size_too_small", field,
            f"{width}x{height}: {model.id} needs at least {model.min_side} pixels a side; the nearest size is {near}.",
        )
    if width * height > model.max_pixels:
        raise ParameterRefused(
            "size_too_large", field,
            f"{width}x{height}: {model.id} renders at most {model.max_pixels} pixels; the nearest size is {near}.",
        )


def _recommended_size(model: VideoModelInfo, picture_size: tuple[int, int] | None) -> tuple[int, int]:
    sizes = [_parse_size(size) for size in model.sizes]
    if picture_size is None:
        return sizes[0]
    if model.clips:  # nothing else is built
        return min(sizes, key=lambda size: share_cut(picture_size, size))
    return whole_size(picture_size, sizes, model.size_multiple, model.min_side, model.max_pixels)


def framing_warnings(
    parameters: EffectiveParameters, videos: Sequence[VideoModelInfo], picture_size: tuple[int, int] | None
) -> tuple[str, ...]:
    """What of the picture the clip will not show, and which size would show all of it."""
    if picture_size is None:
        return ()
    whole = _recommended_size(find_model(parameters.model, videos), picture_size)
    said = cut_in_words(picture_size, (parameters.width, parameters.height), whole)
    return () if said is None else (said,)


def _parse_size(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _num_frames(options: GenerateOptions, model: VideoModelInfo, fps: int) -> int:
    limits = model.num_frames
    if options.seconds is not None:
        if options.num_frames is not None:
            raise ParameterRefused("duration_given_twice", "seconds", "Send either `seconds` or `num_frames`.")
        frames = max(1, round((options.seconds * fps - 1) / 4) * 4 + 1)
        if not limits.minimum <= frames <= limits.maximum:
            raise ParameterRefused(
                "seconds_out_of_range", "seconds",
                f"At {fps} frames a second {model.id} makes {limits.minimum / fps:.2f} to "
                f"{limits.maximum / fps:.2f} seconds.",
            )
        return frames
    if options.num_frames is None:
        return limits.default
    wanted = options.num_frames
    if wanted % 4 != 1 or not limits.minimum <= wanted <= limits.maximum:
        below = min(max((wanted - 1) // 4 * 4 + 1, limits.minimum), limits.maximum)
        above = min(max(below + 4, limits.minimum), limits.maximum)
        near = f"{below}" if below == above or wanted <= below else f"{below} or {above}"
        raise ParameterRefused(
            "num_frames_not_usable", "num_frames", f"{advice('num_frames', model)} Nearest to {wanted}: {near}."
        )
    return wanted


def _num_frames_of_a_clip(
    options: GenerateOptions, model: VideoModelInfo, size: tuple[int, int], num_frames: int
) -> int:
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


def _sampling(options: GenerateOptions, model: VideoModelInfo) -> tuple[Sampler, int, float]:
    sampler = options.sampler or model.samplers[0]
    if sampler not in model.samplers:
        raise ParameterRefused("unknown_sampler", "sampler", advice("sampler", model))
    rcm = sampler in RCM_SAMPLERS
    most_steps = min(model.steps.maximum, MAX_RCM_STEPS) if rcm else model.steps.maximum
    steps = min(model.steps.default, most_steps) if options.steps is None else options.steps
    if not model.steps.minimum <= steps <= most_steps:
        raise ParameterRefused(
            "steps_out_of_range", "steps",
            f"With the {sampler} sampler {model.id} takes {model.steps.minimum} to {most_steps} steps.",
        )
    limits = model.guidance_scale
    default = 1.0 if rcm else limits.default
    guidance = default if options.guidance_scale is None else options.guidance_scale
    if rcm and guidance != 1.0:
        raise ParameterRefused(
            "guidance_not_supported", "guidance_scale",
            f"The {sampler} sampler takes no guidance: use 1 or leave it out.",
        )
    if not rcm and not limits.minimum <= guidance <= limits.maximum:
        raise ParameterRefused("guidance_out_of_range", "guidance_scale", advice("guidance_scale", model))
    return sampler, steps, guidance


def _check_words(options: GenerateOptions, profile: str, vls: Sequence[VLModelInfo]) -> None:
    profiles = sorted({name for vl in vls for name in vl.profiles})
    if profiles and profile not in profiles:
        if options.profile is None:
            return  # the model's own profile: which wording stands in for it is for the describing service to say
        raise ParameterRefused("unknown_profile", "profile", f"Use one of the prompt styles {', '.join(profiles)}.")
    languages = sorted({name for vl in vls for name in vl.languages})
    if languages and options.language not in languages:
        raise ParameterRefused("unknown_language", "language", f"Use one of the languages {', '.join(languages)}.")
