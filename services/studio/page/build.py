"""The page put together: a header, and a tab for each thing that is done here."""

from html import escape

import gradio as gr

from studio.page.chat import add_chat
from studio.page.create import add_create
from studio.page.gallery import add_gallery
from studio.page.server import add_server
from studio.page.setting import Setting
from studio.page.watch import add_watch
from studio.words import Words

__all__ = ["Setting", "build"]


def build(setting: Setting) -> gr.Blocks:
    """The blocks in the setting's language."""
    words = setting.words
    with gr.Blocks(title="Stillmotion", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)) as page:
        gr.HTML(_header(words), elem_id="sm-header", js_on_load=None)
        tabs = gr.Tabs(elem_id="sm-tabs")
        with tabs, gr.Tab(words["create"], id="create"), gr.Row(elem_id="sm-create", equal_height=False):
            create = add_create(setting, page)
            watch = add_watch(setting, create, page)
        with tabs, gr.Tab(words["chat"], id="chat"):
            add_chat(setting, tabs, watch)
        with tabs, gr.Tab(words["gallery"], id="gallery") as gallery:
            add_gallery(setting, gallery)
        with tabs, gr.Tab(words["server"], id="server") as server:
            add_server(setting, server)
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


def _header(words: Words) -> str:
    other = "zh" if words.language == "en" else "en"
    return (
        f'<header class="sm-header"><a class="sm-brand" href="/{words.language}/">'
        f'<span class="sm-mark" aria-hidden="true"></span><span><strong>Stillmotion</strong>'
        f'<small>{escape(words["tagline"])}</small></span></a>'
        f'<nav><a class="sm-language" href="/{other}/" lang="{other}">{escape(words["other_language"])}</a>'
        f'<form class="sm-logout" method="post" action="/logout"><button>{escape(words["log_out"])}</button>'
        "</form></nav></header>"
    )
