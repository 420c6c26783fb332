"""What the server is and does."""

import asyncio

import gradio as gr

from studio.page.setting import Setting
from studio.views.server import server

_MANY = 100


def add_server(setting: Setting, tab: gr.Tab) -> None:
    """Lay it out; it is read anew whenever its tab is opened."""
    told = gr.HTML("", elem_id="sm-server", js_on_load=None)
    with gr.Row():
        refresh = gr.Button(setting.words["refresh"], scale=0, min_width=140, elem_id="sm-server-refresh")

    @setting.told
    async def look(request: gr.Request) -> str:
        api = setting.api_for(request)
        health, models, running, queued = await asyncio.gather(
            api.readiness(), api.models(), api.jobs(limit=_MANY, state="running"),
            api.jobs(limit=_MANY, state="queued"))
        return server(health, models, len(running.data), len(queued.data), setting.words)

    gr.on([tab.select, refresh.click], look, None, told, show_progress="hidden")
