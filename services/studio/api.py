"""The public API in the verbs of this page; whatever goes wrong is one sentence."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import httpx
from httpx_sse import aconnect_sse
from pydantic import BaseModel, ValidationError

from contracts.describe import DescribeResponse
from contracts.errors import Problem
from contracts.jobs import TERMINAL_JOB_STATES, Job, JobPage
from contracts.models import Health, ListedVideoModel, ListedVLModel, ModelList, TemplateInfo
from contracts.openai.chat import DialogueResponse

Variant = Literal["video", "thumbnail", "input"]
_RETRY_S = 2.0
_PATIENT = httpx.Timeout(10.0, read=180.0)  # describing a picture
_FOLLOWING = httpx.Timeout(10.0, read=60.0)  # events come at least every 15 s
_Wire = TypeVar("_Wire", bound=BaseModel)


class ApiFailure(Exception):
    """A call that brought nothing; the text is a sentence for people."""

    def __init__(self, sentence: str, *, status: int | None = None, code: str = "unreachable") -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The server cannot be reached now; following goes on."""

    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The gateway, as one person sees it: with their key, or without any."""

    http: httpx.AsyncClient
    key: str | None = None

    async def models(self) -> ModelList:
        """Every model, the default video model first."""
        return _read(ModelList, await self._call("GET", "/v1/models"))

    async def video_models(self) -> list[ListedVideoModel]:
        """Those that something can be rendered with."""
        return video_models(await self.models())

    async def readiness(self) -> Health:
        """Whether jobs are carried out now, and what is lacking."""
        return _read(Health, await self._call("GET", "/readyz", accepted=(503,)))

    async def describe(
        self, image: bytes | str | None, words: str, template: str, language: str, profile: str
    ) -> DescribeResponse:
        """Caption, prompt and suggestions of a picture, or of one at an address; of words alone, the prompt."""
        kinds = ("caption", "prompt", "edit_suggestion") if image is not None else ("prompt",)
        asked = {name: text for name, text in {"user_prompt": words, "template": template}.items() if text}
        tasks = [{"kind": kind} | (asked if kind == "prompt" else {}) for kind in kinds]
        body: dict[str, Any] = {"tasks": tasks, "language": language, "profile": profile}
        if image is not None:
            body["image"] = image if isinstance(image, str) else base64.b64encode(image).decode()
        return _read(DescribeResponse, await self._call("POST", "/v1/describe", json=body, timeout=_PATIENT))

    async def converse(
        self, text: str, image: str | None, conversation: str | None, language: str
    ) -> DialogueResponse:
        """The next message of a dialogue, `image` as a data URI; the prompt that it leads to, and a reply where the
        server's model converses."""
        try:
            return await self._say(text, image, conversation, language, ("reply", "prompt"))
        except ApiFailure as failure:
            if failure.code != "vl_service_refused":
                raise
            return await self._say(text, image, conversation, language, ("prompt",))

    async def _say(
        self, text: str, image: str | None, conversation: str | None, language: str, kinds: tuple[str, ...]
    ) -> DialogueResponse:
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if image is not None:
            parts.insert(0, {"type": "image_url", "image_url": {"url": image}})
        body = {
            "messages": [{"role": "user", "content": parts}], "language": language,
            "tasks": [{"kind": kind} for kind in kinds],
        } | ({"conversation": conversation} if conversation else {})
        return _read(DialogueResponse, await self._call("POST", "/v1/describe", json=body, timeout=_PATIENT))

    async def generate(self, fields: Mapping[str, Any], image: bytes | None = None) -> Job:
        """A new job: of the picture's bytes, or of a picture that `fields` names, or of words."""
        if image is None:
            return _read(Job, await self._call("POST", "/generate", json=dict(fields)))
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        return _read(Job, await self._call("POST", "/generate", data=form, files={"image": ("picture", image)}))

    async def job(self, job_id: str) -> Job:
        """One job as it is."""
        return _read(Job, await self._call("GET", f"/v1/jobs/{job_id}"))

    async def jobs(self, *, limit: int, cursor: str | None = None, state: str | None = None) -> JobPage:
        """A page of jobs, newest first."""
        wanted = {"limit": limit, "cursor": cursor, "state": state}
        query = {name: value for name, value in wanted.items() if value is not None}
        return _read(JobPage, await self._call("GET", "/v1/jobs", params=query))

    async def cancel(self, job_id: str) -> Job:
        """Stop it, or keep it from starting."""
        return _read(Job, await self._call("POST", f"/v1/jobs/{job_id}/cancel"))

    async def delete(self, job_id: str) -> None:
        """Forget an ended job and its files."""
        await self._call("DELETE", f"/v1/jobs/{job_id}")

    async def picture(self, job_id: str) -> bytes | None:
        """The job's checked input picture, if it had one."""
        try:
            return (await self._call("GET", f"/v1/jobs/{job_id}/content", params={"variant": "input"})).content
        except ApiFailure as failure:
            if failure.code == "no_picture":
                return None
            raise

    async def follow(self, job_id: str) -> AsyncIterator[Job | Outage]:
        """The job at every change until it has ended; over outages of any length.

        Raises:
            ApiFailure: it is not there (any more), or not for this key.
        """
        while True:
            try:
                async for job in self._events(job_id):
                    yield job
                    if job.state in TERMINAL_JOB_STATES:
                        return
                yield await self.job(job_id)  # which says where it was removed meanwhile
            except (ApiFailure, httpx.TransportError) as error:
                if isinstance(error, ApiFailure) and error.status is not None and error.status < 500:
                    raise
                yield Outage(sentence=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _events(self, job_id: str) -> AsyncIterator[Job]:
        path = f"/v1/jobs/{job_id}/events"
        async with aconnect_sse(self.http, "GET", path, headers=self._headers(), timeout=_FOLLOWING) as source:
            if source.response.status_code != 200:
                await source.response.aread()
                raise _failure(source.response)
            async for event in source.aiter_sse():
                if event.data:
                    yield Job.model_validate_json(event.data, extra="ignore")

    @asynccontextmanager
    async def content(
        self, job_id: str, variant: Variant, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """A file of the job as the gateway sends it, `Range` and conditions included."""
        request = self.http.build_request(
            "GET", f"/v1/jobs/{job_id}/content", params={"variant": variant}, headers=self._headers() | dict(headers))
        response = await self.http.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _call(
        self, method: str, path: str, *, accepted: tuple[int, ...] = (), **more: Any
    ) -> httpx.Response:
        try:
            try:
                response = await self.http.request(method, path, headers=self._headers(), **more)
            except httpx.RemoteProtocolError:  # a kept connection was closed just when the request was on its way
                if method != "GET":
                    raise
                response = await self.http.request(method, path, headers=self._headers(), **more)
        except httpx.TransportError as error:
            raise ApiFailure(str(error) or type(error).__name__) from error
        if response.is_success or response.status_code in accepted:
            return response
        raise _failure(response)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def video_models(models: ModelList) -> list[ListedVideoModel]:
    """Of all models those that something can be rendered with."""
    return [model for model in models.data if isinstance(model, ListedVideoModel)]


def templates(models: ModelList) -> list[TemplateInfo]:
    """What prompts may be asked to follow; none of a server that lists none."""
    found = {one.name: one for model in models.data if isinstance(model, ListedVLModel) for one in model.templates}
    return list(found.values())


def _failure(response: httpx.Response) -> ApiFailure:
    try:
        problem = Problem.model_validate_json(response.content, extra="ignore")
    except ValidationError:
        return ApiFailure(f"HTTP {response.status_code}", status=response.status_code, code="http_error")
    return ApiFailure(problem.detail, status=problem.status, code=problem.code)


def _read(kind: type[_Wire], response: httpx.Response) -> _Wire:
    """The server may be the newer one: what is unknown in an answer is ignored."""
    try:
        return kind.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise ApiFailure("The server answers in a form that this page does not know.", code="other_version") from error
