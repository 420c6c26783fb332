"""The visitor's own jobs: filter, open, compare, delete."""

from typing import Any, get_args

import gradio as gr

from contracts.jobs import JobState
from studio.page.setting import Setting
from studio.views.gallery import ON_LOAD, gallery

_PAGE, _MAX = 12, 100
_ALL = ""


def add_gallery(setting: Setting, tab: gr.Tab) -> None:
    """Lay it out and wire it; it is read anew whenever its tab is opened."""
    words = setting.words
    shown = gr.State(_PAGE)
    with gr.Row(elem_classes="sm-actions", equal_height=True):
        states = [(words["all"], _ALL), *((words[state], state) for state in get_args(JobState))]
        state = gr.Dropdown(states, value=_ALL, label=words["filter"], filterable=False, elem_id="sm-filter")
        refresh = gr.Button(words["refresh"], scale=0, min_width=140, elem_id="sm-refresh")
    cards = gr.HTML("", elem_id="sm-gallery", js_on_load=ON_LOAD)
    older = gr.Button(words["older"], visible=False, elem_id="sm-older")

    async def look(request: gr.Request, wanted: str, limit: int) -> list[Any]:
        page = await setting.api_for(request).jobs(limit=limit, state=wanted or None)
        return [gallery(page.data, words), gr.Button(visible=page.next_cursor is not None and limit < _MAX), limit]

    @setting.told
    async def show(wanted: str, request: gr.Request) -> list[Any]:
        return await look(request, wanted, _PAGE)

    @setting.told
    async def show_more(wanted: str, limit: int, request: gr.Request) -> list[Any]:
        return await look(request, wanted, min(limit + _PAGE, _MAX))

    @setting.told
    async def delete(wanted: str, limit: int, event: gr.EventData, request: gr.Request) -> list[Any]:
        await setting.api_for(request).delete(str(event._data["job"]))
        return await look(request, wanted, limit)

    told = [cards, older, shown]
    gr.on([tab.select, refresh.click, state.input], show, state, told, show_progress="hidden")
    older.click(show_more, [state, shown], told, show_progress="hidden")
    cards.click(delete, [state, shown], told, show_progress="hidden")
