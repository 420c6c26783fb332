"""The calls that continue a dialogue: `POST /v1/chat` for the gateway, `/v1/chat/completions` as OpenAI has it, and
`/v1/describe` with `messages`.
"""

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT
from pydantic import ValidationError

from contracts.chat import ChatEnd, ChatEvent, ChatRequest
from contracts.describe import DescribeRequest
from contracts.openai.chat import (
    ChatCompletion,
    ChatCompletionRequest,
    DialogueRequest,
    picture_addresses,
    turns_of,
)
from contracts.refusal import Refusal
from vl_service.model import Model
from vl_service.prompts.profiles import profile_named
from web.chat.completions import Completion, Reply, begun, explained
from web.chat.dialogues import as_events, converse, requests_for, whole
from web.edge import while_connected
from web.parts import sent

_SSE = "text/event-stream"
_one_picture = sent(DescribeRequest)


class UnknownModelError(Refusal):
    """Another model is loaded; the message names it."""

    status, code, title = 404, "model_not_found", "No such model"


class PictureNotReadError(Refusal):
    """A picture's address is none that is read here."""

    status, code, title = 422, "image_url_not_allowed", "The picture was refused"


async def described(request: Request) -> DescribeRequest | DialogueRequest:
    """The body of `/v1/describe`, of either kind. Raises `RequestValidationError`."""
    if request.headers.get("content-type", "").startswith("application/json") and _has_messages(await request.body()):
        try:
            return DialogueRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise _in_body(error) from error
    return await _one_picture(request)


def _has_messages(body: bytes) -> bool:
    try:
        return b'"messages"' in body and "messages" in json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return False


async def answer_dialogue(model: Model, asked: DialogueRequest, request: Request) -> Response:
    """Each task's reply, whole or as server-sent events. Raises what `Model.chat` does before the first piece."""
    pictures = [_data_uri(url) for url in picture_addresses(asked.messages)]
    try:
        wanted = [one.with_pictures(pictures) for one in requests_for(asked, turns_of(asked.messages))]
    except ValidationError as error:
        raise _in_body(error) from error
    told = converse(wanted, partial(_begin, model))
    if not asked.stream:
        answer = await while_connected(request, whole(told))
        return Response(answer.model_dump_json(), media_type="application/json")
    return StreamingResponse(as_events(await while_connected(request, begun(told))), media_type=_SSE)


async def _begin(model: Model, request: ChatRequest) -> Reply:
    profile_named(request.options.profile)
    if request.num_images != len(request.pictures):
        raise Refusal(
            f"There are {request.num_images} pictures in the dialogue, and {len(request.pictures)} came with it.",
            status=422, code="invalid_request", title="The request is not valid")
    return await model.chat(request)


def _in_body(error: ValidationError) -> RequestValidationError:
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()])


def add_dialogue_routes(app: FastAPI, model: Model) -> None:
    """Add them to the app."""
    begin = partial(_begin, model)

    @app.post("/v1/chat", response_class=StreamingResponse)
    async def chat(request: Annotated[ChatRequest, Depends(sent(ChatRequest))]) -> Response:
        """The reply to a dialogue, piece by piece; the wire is in `contracts.chat`."""
        return StreamingResponse(_events(await begin(request)), media_type=_SSE)

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def completions(asked: ChatCompletionRequest, request: Request) -> Response:
        """As in OpenAI's API; pictures as data URIs."""
        _check_model(asked.model, model.info.id)
        try:
            wanted = asked.asked(seed=0)
        except ValidationError as error:
            raise _in_body(error) from error
        reply = await begin(wanted.with_pictures([_data_uri(url) for url in picture_addresses(asked.messages)]))
        completion = Completion(model=asked.model)
        if not asked.stream:
            answer = await while_connected(request, completion.whole(reply))
            return Response(answer.model_dump_json(), media_type="application/json")
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        reply = await while_connected(request, begun(reply))
        return StreamingResponse(completion.chunks(reply, include_usage=usage), media_type=_SSE)


async def _events(reply: Reply) -> AsyncGenerator[bytes]:
    try:
        yield KEEPALIVE_COMMENT  # so that the headers leave before the first word
        async with aclosing(reply):
            async for piece in reply:
                yield _event(ChatEvent(end=piece) if isinstance(piece, ChatEnd) else ChatEvent(text=piece))
    except Exception as error:  # the status has been sent: this is the place to say it
        yield _event(ChatEvent(error=explained(error)))


def _event(event: ChatEvent) -> bytes:
    return b"data: " + event.model_dump_json(exclude_defaults=True).encode() + b"\n\n"


def _check_model(wanted: str, loaded: str) -> None:
    if wanted != loaded:
        raise UnknownModelError(f"There is no model {wanted!r} here; use {loaded!r}.")


def _data_uri(address: str) -> bytes:
    head, _, body = address.partition(",")
    if not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        raise PictureNotReadError(
            "This service fetches no pictures: write `data:image/png;base64,…`, or ask the gateway.")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureNotReadError("The data URI holds no valid base64.") from error
