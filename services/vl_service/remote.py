"""Another server as the backend: whatever speaks OpenAI's chat completions with pictures, such as vLLM and SGLang.

It gets the same words as a checkpoint of our own, and its texts go through the same rules. Every call is a stream, so
that one that nobody waits for any more is closed, and the server stops writing.
"""

import base64
import hashlib
import io
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, get_args

import httpx

from contracts.chat import ChatOptions, Finish, Turn
from contracts.describe import TaskKind
from contracts.models import VLModelInfo
from contracts.refusal import Refusal
from vl_service.backend import CannotReplyError, CheckpointError, Deadline, Description, Piece, Pieces, Task
from vl_service.images import DecodedImage
from vl_service.prompts.asking import Request, ask, dialogue
from vl_service.prompts.profiles import profiles, templates, wording
from vl_service.settings import Settings

_CONNECT_S = 5.0
_AT_ONCE = 8  # a call's tasks: the server batches them
_CALLS_AT_ONCE = 16  # where VL_SLOTS says nothing: no server tells how many it batches
_TEMPERATURE, _TOP_P = 0.7, 0.8  # what keeps Qwen-VL both lively and on the subject


class RemoteAwayError(Refusal):
    """The server cannot be reached, or cannot answer now."""

    status, code, title = 503, "unavailable", "The model's server is away"


class RemoteFailedError(Refusal):
    """The server refused what we asked of it, or answered unreadably; the message has its words."""

    status, code, title = 502, "remote_failed", "The model's server did not do its part"


class RemoteBackend:
    """One model of the server at `VL_REMOTE_URL`."""

    concurrent = True

    def __init__(self, http: httpx.Client, model: str, *, greedy: bool, at_once: int = _CALLS_AT_ONCE) -> None:
        self._http, self._model, self._greedy = http, model, greedy
        place = hashlib.sha256(str(http.base_url).encode()).hexdigest()[:12]
        self._info = VLModelInfo(
            id=model, revision=f"remote-{place}", engine="openai", dtype="unknown", at_once=at_once,
            tasks=list(get_args(TaskKind)), languages=["en", "zh"],
            profiles=list(profiles()), wording=wording(), templates=templates(),
        )

    @property
    def info(self) -> VLModelInfo:
        """Which model this is; what the server computes it with, it does not say."""
        return self._info

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        """See `backend.Backend.describe`. All tasks at once; what comes in another language is asked for once more."""
        deadline.check()
        images = [] if picture is None else [_data_uri(picture)]
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            def write(requests: Sequence[Request]) -> list[str]:
                return list(pool.map(lambda request: self._once(request, images, deadline), requests))

            faults = () if picture is None else picture.faults
            answers = ask(tasks, write, with_picture=picture is not None, faults=faults)
        return Description(answers=answers, facts={})

    def chat(
        self, turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions, deadline: Deadline
    ) -> Pieces:
        """See `backend.Backend.chat`."""
        more: dict[str, Any] = {}
        if options.json_schema is not None:
            more["response_format"] = _format(options.json_schema)
        if options.temperature is not None:
            more["temperature"] = options.temperature
        if options.top_p is not None:
            more["top_p"] = options.top_p
        said = _with_pictures(dialogue(turns, options), [_data_uri(image) for image in images])
        return self._stream(said, deadline, seed=options.seed, max_tokens=options.max_new_tokens, **more)

    def _once(self, request: Request, images: Sequence[str], deadline: Deadline) -> str:
        more = {} if request.schema is None else {"response_format": _format(request.schema)}
        try:
            return "".join(piece.text for piece in self._stream(
                _with_pictures(request.messages, images), deadline, seed=request.seed,
                max_tokens=request.max_new_tokens, **more))
        except CannotReplyError:
            if request.schema is None:
                raise
            return ""  # a server that holds no reply to a schema: it is asked for text next

    def _stream(self, said: list[dict[str, Any]], deadline: Deadline, **more: Any) -> Pieces:
        """The reply as it comes. A server that names no tokens is taken to send one with each piece."""
        body = {"model": self._model, "messages": said, "stream": True, "stream_options": {"include_usage": True},
                "temperature": _TEMPERATURE, "top_p": _TOP_P} | more
        if self._greedy:
            body |= {"temperature": 0.0, "top_p": 1.0}
        written, prompt, finish = 0, 0, "stop"
        with closing(self._events(body, deadline)) as events:
            for event in events:
                if usage := event.get("usage"):
                    prompt, written = usage.get("prompt_tokens", prompt), usage.get("completion_tokens", written)
                for choice in event.get("choices") or ():
                    finish = choice.get("finish_reason") or finish
                    if text := (choice.get("delta") or {}).get("content"):
                        written += 1
                        yield Piece(text=text, prompt_tokens=prompt, completion_tokens=written)
        end: Finish = "length" if finish == "length" else "stop"
        yield Piece(prompt_tokens=prompt, completion_tokens=written, finish=end)

    def _events(self, body: dict[str, Any], deadline: Deadline) -> Generator[dict[str, Any]]:
        deadline.check()
        timeout = httpx.Timeout(max(0.1, deadline.remaining_s()), connect=_CONNECT_S)
        try:
            with self._http.stream("POST", "chat/completions", json=body, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise _refusal(response)
                for line in response.iter_lines():
                    deadline.check()
                    if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                        event = json.loads(data)
                        if error := event.get("error"):
                            raise RemoteFailedError(f"The server broke off: {error.get('message', error)}")
                        yield event
        except httpx.TimeoutException as error:
            deadline.check()
            raise RemoteAwayError("The server does not answer in time.", retry_after_s=5) from error
        except httpx.HTTPError as error:
            raise RemoteAwayError(
                f"The server at {self._http.base_url} cannot be reached ({type(error).__name__}).", retry_after_s=5,
            ) from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RemoteFailedError(f"The server's stream cannot be read ({type(error).__name__}).") from error


def load_remote(settings: Settings) -> RemoteBackend:
    """Find the model that `VL_MODEL` names, or the only one there is, at `VL_REMOTE_URL`.

    Raises:
        CheckpointError: the server has no such model, or several and none is named.
        httpx.HTTPError: it cannot be reached, or refuses us.
    """
    assert settings.remote_url is not None
    key = settings.remote_key.get_secret_value() if settings.remote_key else None
    http = httpx.Client(
        base_url=settings.remote_url, headers={"Authorization": f"Bearer {key}"} if key else {}, trust_env=False,
        timeout=_CONNECT_S)
    response = http.get("models")
    response.raise_for_status()
    found = [str(model["id"]) for model in response.json()["data"]]
    wanted = None if settings.model == "embedded" else settings.model
    if wanted is None and len(found) == 1:
        return RemoteBackend(http, found[0], greedy=settings.greedy, at_once=settings.slots or _CALLS_AT_ONCE)
    if wanted not in found:
        raise CheckpointError(
            f"{settings.remote_url} offers {', '.join(found) or 'no model'}: set VL_MODEL to one of them")
    return RemoteBackend(http, wanted, greedy=settings.greedy, at_once=settings.slots or _CALLS_AT_ONCE)


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}


def _refusal(response: httpx.Response) -> Refusal:
    try:
        words = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        words = f"status {response.status_code}"
    if response.status_code == 429 or response.status_code >= 500:
        return RemoteAwayError(f"The server is busy or away: {words[:500]}", retry_after_s=5)
    if response.status_code in (400, 413, 422):
        return CannotReplyError(f"The server refused: {words[:500]}")
    return RemoteFailedError(f"The server refused us: {words[:500]}. Check VL_REMOTE_URL, VL_REMOTE_KEY and VL_MODEL.")


def _data_uri(picture: DecodedImage) -> str:
    buffer = io.BytesIO()
    picture.rgb.save(buffer, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _with_pictures(said: Sequence[dict[str, Any]], pictures: Sequence[str]) -> list[dict[str, Any]]:
    """The messages with the pictures in their places."""
    left = iter(pictures)
    return [{"role": one["role"], "content": [
        {"type": "image_url", "image_url": {"url": next(left)}} if part["type"] == "image" else part
        for part in one["content"]]} for one in said]
