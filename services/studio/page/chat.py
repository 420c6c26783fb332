"""A dialogue that leads to a prompt, and the video of it."""

import base64
import mimetypes
from pathlib import Path
from typing import Any

import gradio as gr

from studio.api import ApiFailure
from studio.page.create import asked_in
from studio.page.setting import Setting
from studio.page.watch import Watch


def add_chat(setting: Setting, tabs: gr.Tabs, watch: Watch) -> None:
    """Lay it out and wire it; a render is shown where all are, on the first tab."""
    words = setting.words
    conversation = gr.State(None)
    talk = gr.Chatbot(
        label=words["chat"], show_label=False, placeholder=words["chat_hint"], height=420, elem_id="sm-talk",
        buttons=[])
    with gr.Row(equal_height=True):
        message = gr.Textbox("", label=words["chat_you"], lines=2, max_lines=6, scale=5, elem_id="sm-message")
        picture = gr.Image(
            label=words["picture"], type="filepath", image_mode=None, sources=["upload", "clipboard"], height=130,
            scale=2, min_width=180, buttons=[], elem_id="sm-talk-picture")
    prompt = gr.Textbox("", label=words["chat_prompt"], interactive=False, lines=2, elem_id="sm-talk-prompt")
    with gr.Row(elem_classes="sm-actions"):
        send = gr.Button(words["chat_send"], variant="primary", elem_id="sm-send")
        render = gr.Button(words["chat_render"], elem_id="sm-talk-render", interactive=False)
        new = gr.Button(words["chat_new"], elem_id="sm-talk-new")

    @setting.told
    async def say(
        text: str, path: str | None, told: list[Any], known: str | None, request: gr.Request
    ) -> list[Any]:
        if not text.strip():
            raise setting.error(words["chat_hint"])
        answer = await setting.api_for(request).converse(text.strip(), as_data_uri(path), known, words.language)
        texts = {result.kind: result.text for result in answer.results}
        shown = [*told, {"role": "user", "content": text.strip()}]
        if path is not None:
            shown.insert(-1, {"role": "user", "content": gr.Image(path, label=words["picture"])})
        shown.append({"role": "assistant", "content": texts.get("reply") or texts["prompt"]})
        return [shown, "", None, answer.conversation, texts.get("prompt", ""),
                gr.Button(interactive=answer.conversation is not None)]

    async def make(known: str, request: gr.Request) -> list[Any]:
        try:
            job = await setting.api_for(request).generate({"conversation": known} | asked_in(words, "", enhance=False))
        except ApiFailure as failure:
            raise setting.error(words.failure(failure)) from failure
        return [job.id, gr.Tabs(selected="create")]

    heard = [talk, message, picture, conversation, prompt, render]
    gr.on([send.click, message.submit], say, [message, picture, talk, conversation], heard, trigger_mode="once",
          show_progress="minimal", show_progress_on=[talk])
    render.click(make, conversation, [watch.job_id, tabs], show_progress="hidden", trigger_mode="once").success(
        **watch.following)
    new.click(lambda: [[], "", None, None, "", gr.Button(interactive=False)], None, heard, show_progress="hidden")


def as_data_uri(path: str | None) -> str | None:
    """The picture within a message."""
    if path is None:
        return None
    kind = mimetypes.guess_type(path)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
