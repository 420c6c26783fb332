"""The calls that continue a dialogue: `POST /v1/chat` for the gateway, `/v1/chat/completions` as OpenAI has it."""

import base64
import binascii
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from contracts.chat import IMAGE_PART, MAX_CHAT_CHARS, MAX_CHAT_IMAGES, REQUEST_PART, ChatEnd, ChatEvent, ChatRequest
from contracts.errors import Problem, Refusal
from contracts.openai_chat import ChatCompletion, ChatCompletionRequest, picture_addresses
from vl_service.images import DecodedImage, ImageRefusedError, decode_bytes
from vl_service.model import Model
from vl_service.prompts.profiles import profile_named
from vl_service.settings import Settings
from web.chat.completions import Completion, Reply
from web.chat.connected import while_connected
from web.problems import ProblemError, validation_problem

log = logging.getLogger(__name__)

_SSE = "text/event-stream"
_MAX_REQUEST_BYTES = 6 * MAX_CHAT_CHARS + 256 * 1024  # every character escaped, and a schema


class UnknownModelError(Refusal):
    """Another model is loaded; the message names it."""

    status, code, title = 404, "model_not_found", "No such model"


def add_dialogue_routes(app: FastAPI, model: Model, settings: Settings) -> None:
    """Add them to the app."""

    async def begin(request: ChatRequest, images: Sequence[bytes]) -> Reply:
        profile_named(request.options.profile)
        return await model.chat(lambda: _decoded(images, settings.max_image_pixels), request)

    @app.post("/v1/chat", response_class=StreamingResponse)
    async def chat(request: Request) -> Response:
        """The reply to a dialogue, piece by piece; the body as `contracts.chat` says."""
        asked, images = await _sent(request)
        reply = await begin(asked, images)
        return StreamingResponse(_events(reply), media_type=_SSE)

    @app.post("/v1/chat/completions", response_model=ChatCompletion)
    async def completions(asked: ChatCompletionRequest, request: Request) -> Response:
        """As in OpenAI's API; pictures as data URIs."""
        _check_model(asked.model, model.info.id)
        try:
            wanted = asked.asked(seed=0)
        except ValidationError as error:
            raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from error
        images = [_data_uri(address) for address in picture_addresses(asked.messages)]
        reply = await begin(wanted, images)
        completion = Completion(model=asked.model)
        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return StreamingResponse(
                completion.chunks(reply, include_usage=usage, explain=explain), media_type=_SSE)
        whole = await while_connected(request, completion.whole(reply))
        return Response(whole.model_dump_json(), media_type="application/json")


def explain(error: Exception) -> Problem:
    """What the caller is told of an error after the answer began."""
    if isinstance(error, Refusal):
        return error.problem
    log.exception("a reply broke off", exc_info=error)
    return Problem(
        status=500, code="internal_error", title="Internal error",
        detail="The server failed to answer; its log has the cause. Trying again is safe.")


def _decoded(images: Sequence[bytes], max_pixels: int) -> list[DecodedImage]:
    return [decode_bytes(image, max_pixels=max_pixels) for image in images]


async def _events(reply: Reply) -> AsyncGenerator[bytes]:
    try:
        yield KEEPALIVE_COMMENT  # so that the headers leave before the first word
        async with aclosing(reply):
            async for piece in reply:
                yield _event(ChatEvent(end=piece) if isinstance(piece, ChatEnd) else ChatEvent(text=piece))
    except Exception as error:  # the status has been sent: this is the place to say it
        yield _event(ChatEvent(error=explain(error)))


def _event(event: ChatEvent) -> bytes:
    return b"data: " + event.model_dump_json(exclude_defaults=True).encode() + b"\n\n"


async def _sent(request: Request) -> tuple[ChatRequest, list[bytes]]:
    """The request and its images. Raises `ProblemError`, `HTTPException`."""
    try:
        async with request.form(
            max_files=MAX_CHAT_IMAGES, max_fields=1, max_part_size=_MAX_REQUEST_BYTES
        ) as form:
            images = [await part.read() for part in form.getlist(IMAGE_PART) if isinstance(part, UploadFile)]
            words = form.get(REQUEST_PART)
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    try:
        asked = ChatRequest.model_validate_json(words if isinstance(words, str) else "")
    except ValidationError as error:
        raise _refused(validation_problem(error.errors())) from error
    if asked.num_images != len(images):
        raise ProblemError(422, "invalid_request", "The request is not valid",
                           f"The dialogue has {asked.num_images} pictures, and {len(images)} came with it.")
    return asked, images


def _refused(problem: Problem) -> ProblemError:
    return ProblemError(problem.status, problem.code, problem.title, problem.detail, errors=problem.errors)


def _check_model(wanted: str, loaded: str) -> None:
    if wanted != loaded:
        raise UnknownModelError(f"There is no model {wanted!r} here; use {loaded!r}.")


def _data_uri(address: str) -> bytes:
    head, comma, body = address.partition(",")
    if not head.lower().startswith("data:"):
        raise ImageRefusedError(
            "image_url_not_allowed", "This service fetches no pictures: send a data URI, or ask the gateway.")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageRefusedError("image_not_base64", "The data URI is not base64: write `data:image/png;base64,…`.")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageRefusedError("image_not_base64", "The data URI holds no valid base64.") from error
