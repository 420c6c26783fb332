"""What a caller asked and what the services can do → what will be done, or a refusal that names what would work."""

import secrets
from collections.abc import Sequence

from contracts.framing import cut_in_words
from contracts.jobs import EffectiveParameters, GenerateOptions
from contracts.models import AbsentModel, VideoModelInfo, VLModelInfo
from contracts.resolve import ParameterRefused, default_size, find_model
from contracts.resolve import resolve as resolve_render


def resolve(
    options: GenerateOptions, videos: Sequence[VideoModelInfo], vls: Sequence[VLModelInfo],
    picture_size: tuple[int, int] | None, absent: Sequence[AbsentModel] = (), *, to_last_image: bool = False,
) -> EffectiveParameters:
    """Every parameter of the job; `picture_size` is (width, height) in pixels, `None` for words alone; of the models
    that are `absent` it is said why.

    `to_last_image`: there is a picture to end with too.

    Raises:
        ParameterRefused: for the first parameter that cannot be served.
    """
    model = find_model(options.model, videos, absent)
    if to_last_image and "flf2v" not in model.tasks:
        able = [other.id for other in videos if "flf2v" in other.tasks]
        instead = f"`model` {' or '.join(able)} does" if able else "no model here does"
        raise ParameterRefused(
            "task_not_supported", "last_image", f"{model.id} takes no last picture; {instead}. Or leave it out.")
    if options.extend_from is not None and not to_last_image and "i2v" not in model.tasks:
        able = " or ".join(other.id for other in videos if "i2v" in other.tasks)
        raise ParameterRefused(
            "task_not_supported", "extend_from", f"{model.id} begins with no picture, so it cannot go on from a last "
            f"frame; {f'`model` {able} can' if able else 'no model here can'}.")
    render = resolve_render(options, model, picture_size, to_last_image=to_last_image)
    profile = options.profile or model.profile
    _check_words(options, profile, vls)
    return EffectiveParameters(
        model=model.id, revision=model.revision, engine=model.engine, engine_reason=model.engine_reason or None,
        profile=profile, width=render.width, height=render.height, num_frames=render.num_frames, fps=render.fps,
        steps=render.sampling.steps, sampler=render.sampling.sampler, guidance_scale=render.sampling.guidance_scale,
        guidance_scale_2=render.sampling.guidance_scale_2, loras=options.loras, language=options.language,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
    )


def framing_warnings(
    parameters: EffectiveParameters, videos: Sequence[VideoModelInfo], picture_size: tuple[int, int] | None
) -> tuple[str, ...]:
    """What of the picture the clip will not show, and which size would show all of it."""
    if picture_size is None:
        return ()
    whole = default_size(find_model(parameters.model, videos), picture_size)
    said = cut_in_words(picture_size, (parameters.width, parameters.height), whole)
    return () if said is None else (said,)


def _check_words(options: GenerateOptions, profile: str, vls: Sequence[VLModelInfo]) -> None:
    profiles = sorted({name for vl in vls for name in vl.profiles})
    if profiles and profile not in profiles:
        if options.profile is None:
            return  # the model's own profile: which wording stands in for it is for the describing service to say
        raise ParameterRefused("unknown_profile", "profile", f"Use one of the prompt styles {', '.join(profiles)}.")
    languages = sorted({name for vl in vls for name in vl.languages})
    if languages and options.language not in languages:
        raise ParameterRefused("unknown_language", "language", f"Use one of the languages {', '.join(languages)}.")
