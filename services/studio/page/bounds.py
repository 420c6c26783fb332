"""From what a model can do to the controls under More, and from these to the fields of a request."""

from collections.abc import Sequence
from math import gcd
from typing import Any

import gradio as gr

from contracts.models import IntRange, ListedVideoModel, TemplateInfo
from studio.words import Words

AS_PICTURE = NO_TEMPLATE = ""
QUICK, USUAL, BEST = "quick", "usual", "best"


def steps_of(model: ListedVideoModel, sampler: str | None) -> IntRange:
    """The steps that go with the sampler."""
    return model.sampler_steps.get(sampler or model.samplers[0], model.steps)


def steps_for(model: ListedVideoModel, sampler: str | None, quality: str) -> int:
    """As many steps as the quality stands for, within the bounds."""
    steps = steps_of(model, sampler)
    wanted = {QUICK: steps.default // 2, USUAL: steps.default, BEST: steps.default * 2}[quality]
    return min(max(wanted, steps.minimum), steps.maximum)


def templates_offered(templates: Sequence[TemplateInfo], words: Words) -> gr.Dropdown:
    """None of them at first, then each by what people call it; hidden where there are none."""
    named = [(one.title.get(words.language) or one.name[:1].upper() + one.name[1:], one.name) for one in templates]
    return gr.Dropdown(
        choices=[(words["no_template"], NO_TEMPLATE), *named], value=NO_TEMPLATE, visible=bool(templates))


def sizes(model: ListedVideoModel, words: Words) -> list[tuple[str, str]]:
    """Labels and values: the picture's own shape first, then what the model was made for."""
    return [(words["as_picture"], AS_PICTURE), *((_labelled(size), size) for size in model.sizes)]


def _labelled(size: str) -> str:
    width, height = (int(side) for side in size.split("x"))
    common = gcd(width, height)
    across, down = width // common, height // common
    ratio = f"{across}:{down}" if across <= 21 and down <= 21 else f"{width / height:.2f}:1"
    return f"{width} × {height} · {ratio}"


def seconds_range(model: ListedVideoModel) -> tuple[float, float, float]:
    """Shortest, longest and default length at the default rate, in seconds."""
    frames, fps = model.num_frames, model.fps.default
    return round(frames.minimum / fps, 2), round(frames.maximum / fps, 2), round(frames.default / fps, 2)


def controls(model: ListedVideoModel, words: Words) -> list[Any]:
    """Updates of size, length, quality, steps, sampler, guidance, guidance_2, fps, loras, lora scale, in this order."""
    shortest, longest, usual = seconds_range(model)
    steps, second = steps_of(model, None), model.guidance_scale_2
    guided = model.guidance_scale.maximum > model.guidance_scale.minimum
    return [
        gr.Dropdown(choices=sizes(model, words), value=AS_PICTURE),
        gr.Slider(minimum=shortest, maximum=longest, step=0.01, value=usual, interactive=longest > shortest),
        gr.Radio(value=USUAL),
        gr.Slider(minimum=steps.minimum, maximum=steps.maximum, step=1, value=steps.default,
                  interactive=steps.maximum > steps.minimum),
        gr.Dropdown(choices=model.samplers, value=model.samplers[0], interactive=len(model.samplers) > 1),
        gr.Slider(minimum=model.guidance_scale.minimum, maximum=model.guidance_scale.maximum, step=0.1,
                  value=model.guidance_scale.default, visible=guided),
        gr.Slider(minimum=second.minimum, maximum=second.maximum, step=0.1, value=second.default, visible=True)
        if second else gr.Slider(visible=False),
        gr.Slider(minimum=model.fps.minimum, maximum=model.fps.maximum, step=1, value=model.fps.default,
                  interactive=model.fps.maximum > model.fps.minimum),
        gr.Dropdown(choices=[lora.id for lora in model.loras if not lora.problem], value=[], multiselect=True,
                    visible=bool(model.loras)),
        gr.Slider(visible=bool(model.loras)),
    ]


def fields_of(model: ListedVideoModel, chosen: Sequence[Any]) -> dict[str, Any]:
    """What of the controls (size, length, steps, sampler, guidance, guidance_2, fps, loras, lora scale) is not the
    model's own default, as fields of `POST /generate`."""
    size, seconds, steps, sampler, guidance, guidance_2, fps, loras, scale = chosen
    fields: dict[str, Any] = {}
    if size != AS_PICTURE:
        fields["size"] = size
    rate = int(fps or model.fps.default)
    if rate != model.fps.default:
        fields["fps"] = rate
    if abs(seconds - seconds_range(model)[2]) > 0.005 or rate != model.fps.default:
        bounds = model.num_frames
        fields["num_frames"] = min(max(bounds.nearest(seconds * rate), bounds.minimum), bounds.maximum)
    if sampler and sampler != model.samplers[0]:
        fields["sampler"] = sampler
    if int(steps) != steps_of(model, sampler).default:
        fields["steps"] = int(steps)
    if sampler not in model.unguided_samplers:
        if abs(guidance - model.guidance_scale.default) > 1e-6:
            fields["guidance_scale"] = guidance
        if model.guidance_scale_2 and abs(guidance_2 - model.guidance_scale_2.default) > 1e-6:
            fields["guidance_scale_2"] = guidance_2
    if loras:
        fields["loras"] = [{"id": name, "scale": scale} for name in loras]
    return fields
