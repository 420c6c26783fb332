"""The right half: a job from its place in the queue to its video, and what can be done with it then."""

import base64
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from contracts.jobs import TERMINAL_JOB_STATES, Job
from studio.api import ApiFailure, Outage
from studio.page.create import Create, asked_in, fields_asked
from studio.page.setting import Setting
from studio.snippets import fields_again
from studio.views import job as views

_MAX_WATCHED = 10_000
_MAX_FRAME_CHARS = 30_000_000
_PNG = "data:image/png;base64,"
Shown = list[Any]
"""Of the panel, the cancel button, and the row of what can be done afterwards."""


def add_watch(setting: Setting, create: Create, page: gr.Blocks) -> "Watch":
    """Lay it out and wire it."""
    words = setting.words
    with gr.Column(scale=7, min_width=320, elem_id="sm-see"):
        job_id = gr.Textbox(visible=False)
        panel = gr.HTML(views.idle(words), elem_id="sm-shown", js_on_load=None)
        cancel = gr.Button(words["cancel"], visible=False, variant="stop", elem_id="sm-cancel")
        with gr.Row(visible=False, equal_height=True, elem_classes="sm-actions", elem_id="sm-after") as after:
            again = gr.Button(words["again"], elem_id="sm-again")
            onward = gr.Button(words["continue"], elem_id="sm-continue")
            take = gr.Button(words["take_frame"], elem_id="sm-take-frame")
        frame = gr.Textbox(visible=False)
    watch = Watch(setting, job_id, [panel, cancel, after])
    create.generate.click(
        watch.submit, create.asked, [job_id, create.seed, *watch.shown], show_progress="hidden", trigger_mode="once",
    ).success(**watch.following)
    again.click(watch.repeat, job_id, [job_id, *watch.shown], show_progress="hidden", trigger_mode="once").success(
        **watch.following)
    onward.click(
        watch.go_on, [job_id, create.words, create.template, create.enhance], [job_id, *watch.shown],
        show_progress="hidden", trigger_mode="once",
    ).success(**watch.following)
    page.load(watch.opened, None, job_id, show_progress="hidden").success(**watch.following)
    cancel.click(watch.cancel, job_id, cancel, show_progress="hidden")
    take.click(watch.take_frame, frame, create.picture, js="() => stillmotion.lastFrame()", show_progress="hidden")
    return watch


class Watch:
    """What happens to the one job that a visitor's page shows."""

    def __init__(self, setting: Setting, job_id: gr.Textbox, shown: Shown) -> None:
        self._setting = setting
        self._words = setting.words
        self._watched: OrderedDict[str, str] = OrderedDict()  # by the page's session
        self.job_id = job_id
        self.shown = shown
        self.following: dict[str, Any] = {
            "fn": self.follow, "inputs": job_id, "outputs": shown, "show_progress": "hidden",
            "trigger_mode": "multiple",
        }

    async def submit(self, request: gr.Request, *values: Any) -> list[Any]:
        """A new job of what was filled in."""
        api = self._setting.api_for(request)
        try:
            fields, picture = await fields_asked(api, self._words, values)
            if picture is None and not {"prompt", "image"} & set(fields):
                raise self._setting.error(self._words["needs_something"])
            job = await api.generate(fields, picture)
        except ApiFailure as failure:
            raise self._setting.error(self._words.failure(failure)) from failure
        return [job.id, job.parameters.seed, *self._present(job)]

    async def repeat(self, job_id: str, request: gr.Request) -> list[Any]:
        """The same with a seed that the server draws."""
        api = self._setting.api_for(request)
        try:
            before = await api.job(job_id)
            fields = {name: value for name, value in fields_again(before).items() if name != "seed"}
            if before.metadata:
                fields["metadata"] = before.metadata
            job = await api.generate(fields | {"preview": True}, await api.picture(job_id))
        except ApiFailure as failure:
            raise self._setting.error(self._words.failure(failure)) from failure
        return [job.id, *self._present(job)]

    async def go_on(
        self, job_id: str, said: str, template: str | None, enhance: bool, request: gr.Request
    ) -> list[Any]:
        """A longer video: this one, and what happens next by the words that stand there now."""
        fields = {"extend_from": job_id} | asked_in(self._words, said, template, enhance=enhance)
        try:
            job = await self._setting.api_for(request).generate(fields)
        except ApiFailure as failure:
            raise self._setting.error(self._words.failure(failure)) from failure
        return [job.id, *self._present(job)]

    async def opened(self, request: gr.Request) -> str:
        """The job that the page's address names: what was watched before a reload."""
        return request.query_params.get("job", "")

    async def follow(self, job_id: str, request: gr.Request) -> AsyncIterator[Shown]:
        """The panel at every change, until the job has ended or the page shows another one."""
        if not job_id:
            yield [views.idle(self._words), gr.Button(visible=False), gr.Row(visible=False)]
            return
        session = request.session_hash or ""
        self._watch(session, job_id)
        latest: Job | None = None
        try:
            async for event in self._setting.api_for(request).follow(job_id):
                if self._watched.get(session) != job_id:
                    return
                if isinstance(event, Job):
                    latest = event
                    yield self._present(event)
                else:
                    yield self._away(event, latest)
        except ApiFailure as failure:
            gone = self._words["gone"] if failure.status == 404 else self._words.failure(failure)
            yield [views.notice(gone), gr.Button(visible=False), gr.Row(visible=False)]

    async def cancel(self, job_id: str, request: gr.Request) -> Any:
        """Ask the gateway to stop it; its events tell the rest."""
        try:
            await self._setting.api_for(request).cancel(job_id)
        except ApiFailure as failure:
            if failure.status != 409:  # it has ended meanwhile
                raise self._setting.error(self._words.failure(failure)) from failure
        return gr.Button(interactive=False)

    def take_frame(self, frame: str) -> Any:
        """The video's last frame, which the browser took, as the next picture."""
        if not frame.startswith(_PNG) or len(frame) > _MAX_FRAME_CHARS:
            return gr.skip()
        path = Path(tempfile.mkdtemp(prefix="studio-"), "frame.png")
        path.write_bytes(base64.b64decode(frame.removeprefix(_PNG)))
        return str(path)

    def _watch(self, session: str, job_id: str) -> None:
        self._watched[session] = job_id
        self._watched.move_to_end(session)
        while len(self._watched) > _MAX_WATCHED:
            self._watched.popitem(last=False)

    def _present(self, job: Job) -> Shown:
        ended = job.state in TERMINAL_JOB_STATES
        panel = (views.ended(job, self._words, self._setting.shown_url) if ended
                 else views.progress(job, self._words))
        return [panel, gr.Button(visible=not ended, interactive=True), gr.Row(visible=job.state == "completed")]

    def _away(self, outage: Outage, latest: Job | None) -> Shown:
        sentence = self._words["outage"]
        panel = views.notice(sentence) if latest is None else views.progress(latest, self._words, sentence)
        return [panel, gr.Button(visible=False), gr.Row(visible=False)]
