"""The bodies of `POST /generate`: multipart or JSON, read with a limit, never more than one picture."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.describe import MAX_IMAGE_BASE64_CHARS
from contracts.jobs import GenerateOptions, GenerateRequest
from gateway.ledger import off_loop
from gateway.uploads import decode_text, too_many_bytes

_FIELDS_ROOM = 1024 * 1024  # what the other fields and the multipart framing may take beside the picture
_MAX_FIELDS = 40
_LINGER_BYTES = 128 * 1024 * 1024
_LINGER_S = 10.0


class BodyTooLarge(Exception):
    """More bytes than any legal request has; the rest was not read."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request is larger than {limit} bytes.")
        self.limit = limit


class BodyRefused(ValueError):
    """The body is not one that we take: stable `code`, and in words what to send."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was asked, and the bytes of the picture as they came (unchecked)."""

    options: GenerateOptions
    image: bytes | None


async def read_submission(request: Request, max_image_bytes: int) -> Submission:
    """Read either encoding.

    Raises:
        BodyTooLarge, PictureRefused, BodyRefused: see there.
        pydantic.ValidationError: a field is unknown or out of bounds.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _read_form(request, max_image_bytes)
    if kind == "application/json" or kind.endswith("+json"):
        return await _read_json(request, max_image_bytes)
    if not kind and request.headers.get("content-length", "0") == "0":
        raise BodyRefused("empty_body", "The request is empty: send a picture as `image`, or words as `prompt`.")
    raise BodyRefused(
        "unsupported_media_type",
        "Send multipart/form-data (curl -F image=@cat.jpg) or application/json, not " + (kind or "an unnamed type."),
    )


async def limited_stream(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """The body in pieces; a declared length above `limit` is refused before the first one is read.

    Raises:
        BodyTooLarge: at the first piece beyond `limit`.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge(limit)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise BodyTooLarge(limit)
        yield chunk


async def read_limited(request: Request, limit: int = MAX_IMAGE_BASE64_CHARS + _FIELDS_ROOM) -> bytes:
    """The whole body, at most `limit` bytes of it."""
    body = bytearray()
    async for chunk in limited_stream(request, limit):
        body += chunk
    return bytes(body)


class LingeringResponse(Response):
    """Answers at once, then reads on and throws away what the client still sends, within bounds.

    Many clients look at the answer only after they have sent everything: closed on earlier, they report a broken pipe
    in place of the refusal.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _read_json(request: Request, max_image_bytes: int) -> Submission:
    body = await read_limited(request, max_image_bytes * 4 // 3 + _FIELDS_ROOM)
    if not body.strip():
        raise BodyRefused("empty_body", "The request is empty: send a picture as `image`, or words as `prompt`.")

    def parse() -> Submission:  # megabytes of JSON and base64 take tens of milliseconds
        asked = GenerateRequest.model_validate_json(body)
        image = None if asked.image is None else decode_text(asked.image, max_image_bytes)
        return Submission(options=GenerateOptions.model_validate(asked.model_dump(exclude={"image"})), image=image)

    return await off_loop(parse)


async def _read_form(request: Request, max_image_bytes: int) -> Submission:
    parser = MultiPartParser(
        Headers(raw=request.headers.raw), limited_stream(request, max_image_bytes + _FIELDS_ROOM), max_files=1,
        max_fields=_MAX_FIELDS,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, MultipartParseError) as error:
        raise BodyRefused("form_unreadable", f"The multipart body cannot be read: {error}") from None
    try:
        image = await _form_image(form, max_image_bytes)
        return Submission(options=GenerateOptions.model_validate(_form_fields(form)), image=image)
    finally:
        await form.close()


async def _form_image(form: FormData, max_image_bytes: int) -> bytes | None:
    given = [value for name, value in form.multi_items() if name == "image" and value != ""]
    files = [name for name, value in form.multi_items() if isinstance(value, UploadFile) and name != "image"]
    if files:
        raise BodyRefused("unexpected_file", f"The file field {files[0]!r} is not known: the picture goes in `image`.")
    if len(given) > 1:
        raise BodyRefused("image_given_twice", "Send one `image`.")
    if not given:
        return None
    image = given[0]
    if isinstance(image, str):
        return decode_text(image, max_image_bytes)
    if not image.filename and not image.size:
        return None  # what a browser sends for a file field left empty
    if image.size is not None and image.size > max_image_bytes:
        raise too_many_bytes(max_image_bytes)
    return await image.read()


def _form_fields(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == "image" or value == "":  # a form field left empty is a field left out
            continue
        if name in fields:
            raise BodyRefused("field_given_twice", f"The field {name!r} is given twice.")
        fields[name] = value
    if isinstance(metadata := fields.get("metadata"), str):
        try:
            fields["metadata"] = json.loads(metadata)
        except ValueError:
            raise BodyRefused("metadata_unreadable", "`metadata` in a form is a JSON object of strings.") from None
    return fields

