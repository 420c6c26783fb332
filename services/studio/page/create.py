"""The left half: a picture, words, and everything that may be set."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from contracts.models import ListedVideoModel
from studio.api import Api, templates, video_models
from studio.page.bounds import BEST, QUICK, USUAL, controls, fields_of, steps_for, templates_offered
from studio.page.setting import Setting
from studio.words import Words

NUM_SUGGESTIONS = 3
_MAX_SEED = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """The parts that others work with; `asked` is what `fields_asked` takes, in its order."""

    picture: gr.Image
    words: gr.Textbox
    template: gr.Dropdown
    enhance: gr.Checkbox
    generate: gr.Button
    seed: gr.Number
    lock: gr.Checkbox
    asked: Sequence[Any]


def add_create(setting: Setting, page: gr.Blocks) -> Create:
    """Lay it out, and wire what happens in it alone."""
    words = setting.words
    with gr.Column(scale=5, min_width=320, elem_id="sm-ask"):
        picture = gr.Image(
            label=words["picture"], type="filepath", image_mode=None, sources=["upload", "clipboard"], height=300,
            buttons=[], elem_id="sm-picture")
        address = gr.Textbox("", label=words["picture_url"], placeholder="https://", max_lines=1, elem_id="sm-address")
        said = gr.Textbox(
            "", label=words["words"], placeholder=words["words_hint"], lines=4, max_lines=12, max_length=4000,
            elem_id="sm-words")
        template = gr.Dropdown(
            [], label=words["template"], filterable=False, info=words["template_hint"], visible=False,
            elem_id="sm-template")
        with gr.Row(elem_classes="sm-actions"):
            describe = gr.Button(words["describe"], elem_id="sm-describe")
            generate = gr.Button(words["generate"], variant="primary", elem_id="sm-generate")
        seen = gr.Markdown(visible=False, elem_id="sm-seen")
        with gr.Row(visible=False, elem_classes="sm-chips", elem_id="sm-suggestions") as chips:
            suggestions = [gr.Button("", size="sm", visible=False) for _ in range(NUM_SUGGESTIONS)]
        enhance = gr.Checkbox(True, label=words["enhance"], elem_id="sm-enhance")
        with gr.Accordion(words["more"], open=False, elem_id="sm-more"):
            model, bounded, negative, seed, lock, dice, quality = _more(words)
    asked = (picture, address, said, template, enhance, model, negative, lock, seed, *bounded)
    _wire_words(setting, picture, address, said, template, describe, seen, chips, suggestions)
    _wire_template(template, enhance)
    _wire_bounds(setting, page, model, template, bounded, quality)
    dice.click(lambda: (random.randrange(_MAX_SEED), True), None, [seed, lock], show_progress="hidden")
    return Create(
        picture=picture, words=said, template=template, enhance=enhance, generate=generate, seed=seed, lock=lock,
        asked=asked)


def _more(words: Words) -> tuple[gr.Dropdown, list[Any], gr.Textbox, gr.Number, gr.Checkbox, gr.Button, gr.Radio]:
    """The controls under More; their bounds come with the model."""
    with gr.Row():
        model = gr.Dropdown([], label=words["model"], filterable=False, elem_id="sm-model")
        size = gr.Dropdown([("", "")], value="", label=words["size"], filterable=False, elem_id="sm-size")
    with gr.Row():
        seconds = gr.Slider(0.1, 10, 2, label=words["length"], elem_id="sm-length")
        quality = gr.Radio(
            [(words[name], name) for name in (QUICK, USUAL, BEST)], value=USUAL, label=words["quality"],
            elem_id="sm-quality")
    with gr.Row():
        steps = gr.Slider(1, 100, 4, step=1, label=words["steps"], elem_id="sm-steps")
        sampler = gr.Dropdown([], label=words["sampler"], filterable=False, elem_id="sm-sampler")
    with gr.Row():
        guidance = gr.Slider(1, 20, 1, label=words["guidance"], elem_id="sm-guidance")
        guidance_2 = gr.Slider(1, 20, 1, label=words["guidance_2"], visible=False, elem_id="sm-guidance-2")
        fps = gr.Slider(1, 60, 16, step=1, label=words["fps"], elem_id="sm-fps")
    with gr.Row():
        loras = gr.Dropdown([], multiselect=True, label=words["loras"], visible=False, elem_id="sm-loras")
        scale = gr.Slider(-2, 2, 1, step=0.05, label=words["lora_scale"], visible=False, elem_id="sm-lora-scale")
    negative = gr.Textbox("", label=words["negative"], max_lines=4, elem_id="sm-negative")
    with gr.Row(equal_height=True):
        seed = gr.Number(label=words["seed"], precision=0, minimum=0, elem_id="sm-seed")
        lock = gr.Checkbox(False, label=words["seed_lock"], elem_id="sm-lock")
        dice = gr.Button(words["dice"], size="sm", elem_id="sm-dice")
    return (model, [size, seconds, steps, sampler, guidance, guidance_2, fps, loras, scale], negative, seed, lock, dice,
            quality)


def _wire_words(
    setting: Setting, picture: gr.Image, address: gr.Textbox, said: gr.Textbox, template: gr.Dropdown,
    describe: gr.Button, seen: gr.Markdown, chips: gr.Row, suggestions: Sequence[gr.Button],
) -> None:
    words = setting.words

    @setting.told
    async def look(path: str | None, url: str, text: str, pattern: str | None, request: gr.Request) -> list[Any]:
        shown = read_picture(path) or url.strip() or None
        if shown is None and not text.strip():
            raise setting.error(words["needs_something"])
        api = setting.api_for(request)
        profile = await default_profile(api)
        told = await api.describe(shown, text.strip(), pattern or "", words.language, profile)
        texts = {result.kind: result.text for result in told.results}
        offered = [line.strip() for line in texts.get("edit_suggestion", "").splitlines() if line.strip()]
        offered = offered[:NUM_SUGGESTIONS]
        buttons = [gr.Button(value=offered[at] if at < len(offered) else "", visible=at < len(offered))
                   for at in range(NUM_SUGGESTIONS)]
        caption = texts.get("caption", "")
        return [texts.get("prompt", text), gr.Markdown(f"**{words['seen']}**: {plain(caption)}", visible=bool(caption)),
                gr.Row(visible=bool(offered)), *buttons]

    describe.click(
        look, [picture, address, said, template], [said, seen, chips, *suggestions], show_progress="minimal",
        show_progress_on=[said], trigger_mode="once")
    for button in suggestions:
        button.click(lambda text: text, button, said, show_progress="hidden")


def _wire_template(template: gr.Dropdown, enhance: gr.Checkbox) -> None:
    """A prompt that follows a template is written anew: who chooses one asks for that, and who wants words as they are
    chooses none."""
    template.input(None, [template, enhance], enhance, js="(template, enhance) => template ? true : enhance")
    enhance.input(None, [enhance, template], template, js="(enhance, template) => enhance ? template : ''")


def _wire_bounds(
    setting: Setting, page: gr.Blocks, model: gr.Dropdown, template: gr.Dropdown, bounded: Sequence[Any],
    quality: gr.Radio,
) -> None:
    size, seconds, steps, sampler, guidance, guidance_2, fps, loras, scale = bounded
    changed = [size, seconds, quality, steps, sampler, guidance, guidance_2, fps, loras, scale]

    async def known(request: gr.Request, wanted: str | None = None) -> ListedVideoModel:
        return await model_named(setting.api_for(request), wanted)

    @setting.told
    async def begin(request: gr.Request) -> list[Any]:
        listed = await setting.api_for(request).models()
        models, offered = video_models(listed), templates_offered(templates(listed), setting.words)
        if not models:
            return [offered] + [gr.skip()] * (1 + len(changed))
        return [offered, gr.Dropdown(choices=[one.id for one in models], value=models[0].id),
                *controls(models[0], setting.words)]

    @setting.told
    async def choose(wanted: str, request: gr.Request) -> list[Any]:
        return controls(await known(request, wanted), setting.words)

    @setting.told
    async def fit_steps(wanted: str, name: str, sampled: str, request: gr.Request) -> Any:
        one = await known(request, wanted)
        bounds = one.sampler_steps.get(sampled, one.steps)
        return gr.Slider(minimum=bounds.minimum, maximum=bounds.maximum, value=steps_for(one, sampled, name))

    page.load(begin, None, [template, model, *changed], show_progress="hidden")
    model.input(choose, model, changed, show_progress="hidden")
    for control in (quality, sampler):
        control.input(fit_steps, [model, quality, sampler], steps, show_progress="hidden")


async def fields_asked(api: Api, words: Words, values: Sequence[Any]) -> tuple[dict[str, Any], bytes | None]:
    """The fields of `POST /generate`, and the picture's bytes, of what `Create.asked` holds."""
    path, address, said, template, enhance, model, negative, lock, seed, *chosen = values
    fields = asked_in(words, said, template, enhance=enhance)
    if path is None and address.strip():
        fields["image"] = address.strip()
    if negative.strip():
        fields |= {"negative_prompt": negative.strip(), "metadata": {"negative_prompt": negative.strip()[:512]}}
    if lock and seed is not None:
        fields["seed"] = int(seed)
    spec = await model_named(api, model)
    fields |= {"model": spec.id} | fields_of(spec, chosen)
    return fields, read_picture(path)


def asked_in(words: Words, said: str, template: str | None = None, *, enhance: bool) -> dict[str, Any]:
    """What every request of this page says: the language, the words and the template if there are any, and that it
    will be watched."""
    fields: dict[str, Any] = {"language": words.language, "preview": True}
    if said.strip():
        fields |= {"prompt": said.strip(), "enhance": "auto" if enhance else "never"}
    if template:
        fields["template"] = template
    return fields


async def model_named(api: Api, name: str | None) -> ListedVideoModel:
    """The model of that id, or the default one; raises `ApiFailure`."""
    models = await api.video_models()
    return next((one for one in models if one.id == name), models[0])


async def default_profile(api: Api) -> str:
    """The style of prompt that the default video model reads."""
    models = await api.video_models()
    return models[0].profile if models else "embedded"


def read_picture(path: str | None) -> bytes | None:
    """The bytes of what was dropped."""
    return None if path is None else Path(path).read_bytes()


def plain(text: str) -> str:
    """Words as they are, where Markdown would read them."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-.!|$" else sign for sign in text)
