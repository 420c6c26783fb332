"""The bodies that ask for a video: multipart or JSON, read with a limit, never more than one picture."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from contracts.describe import MAX_IMAGE_BASE64_CHARS
from contracts.jobs import GenerateOptions, GenerateRequest
from gateway.images.refusals import too_many_bytes
from gateway.jobs.job import JobRecord
from gateway.submit.uploads import decode_text
from gateway.threads import off_loop

_FIELDS_ROOM = 1024 * 1024  # what the other fields and the multipart framing may take beside the picture
_PARSED_AT_ONCE_BYTES = 16 * 1024  # a tenth of a millisecond: less than the way to a thread and back
_MAX_FIELDS = 60
_METADATA = re.compile(r"metadata\[.+\]")
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
    """What was asked, and the picture as it came: its bytes (unchecked), its address, a file uploaded before, or what
    the remixed job began with.
    """

    options: GenerateOptions
    image: bytes | None = None
    image_url: str | None = None
    file_id: str | None = None
    remixed_from: JobRecord | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.image, self.image_url, self.file_id)) > 1:
            raise BodyRefused("image_given_twice", "Send one picture: either the picture itself or `file_id`.")

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture at all."""
        remixes_one = self.remixed_from is not None and self.remixed_from.picture is not None
        return remixes_one or (self.image, self.image_url, self.file_id) != (None, None, None)

    def fingerprint(self) -> str:
        """SHA-256 in hex of what was asked; two encodings of the same wish have the same. Hashes megabytes."""
        picture = None if self.image is None else hashlib.sha256(self.image).hexdigest()
        asked = [
            self.options.model_dump(mode="json", exclude_defaults=True), picture, self.image_url, self.file_id,
            self.remixed_from.id if self.remixed_from else None,
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


async def read_submission(request: Request, max_image_bytes: int) -> Submission:
    """Read either encoding of `POST /generate`.

    Raises:
        BodyTooLarge, ImageRefused, BodyRefused: see there.
        pydantic.ValidationError: a field is unknown or out of bounds.
    """
    if body_kind(request) == "form":
        async with read_form(request, max_image_bytes) as form:
            picture = await form_picture(form, "image", max_image_bytes)
            return submission_of(GenerateRequest.model_validate(form_fields(form, "image")), picture)
    body = await read_json(request, max_image_bytes)

    def parse() -> Submission:  # megabytes of JSON and base64 take tens of milliseconds
        asked = GenerateRequest.model_validate_json(body)
        return submission_of(asked, picture_text(asked.image, max_image_bytes))

    return parse() if len(body) <= _PARSED_AT_ONCE_BYTES else await off_loop(parse)


def submission_of(asked: GenerateRequest, picture: bytes | str | None) -> Submission:
    """The submission of a validated body; `picture` is its bytes or its address."""
    return Submission(
        options=GenerateOptions.model_validate(asked.model_dump(exclude={"image", "file_id"})),
        image=picture if isinstance(picture, bytes) else None,
        image_url=picture if isinstance(picture, str) else None, file_id=asked.file_id,
    )


def body_kind(request: Request) -> Literal["form", "json"]:
    """Which of the two encodings the body has; raises `BodyRefused` where it has none."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return "form"
    if kind == "application/json" or kind.endswith("+json"):
        return "json"
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


async def read_json(request: Request, max_image_bytes: int) -> bytes:
    """A JSON body with room for a picture in base64. Raises `BodyTooLarge`, `BodyRefused`."""
    body = await read_limited(request, max_image_bytes * 4 // 3 + _FIELDS_ROOM)
    if not body.strip():
        raise BodyRefused("empty_body", "The request is empty: send a picture as `image`, or words as `prompt`.")
    return body


def picture_text(text: str | None, max_image_bytes: int) -> bytes | str | None:
    """The picture's bytes, or its web address as it is. Raises `ImageRefused`."""
    if text is None or text[:8].lower().startswith(("http://", "https://")):
        return text
    return decode_text(text, max_image_bytes)


@asynccontextmanager
async def read_form(request: Request, max_image_bytes: int) -> AsyncIterator[FormData]:
    """A multipart body with one file at most. Raises `BodyTooLarge`, `BodyRefused`."""
    parser = MultiPartParser(
        Headers(raw=request.headers.raw), limited_stream(request, max_image_bytes + _FIELDS_ROOM), max_files=1,
        max_fields=_MAX_FIELDS,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, MultipartParseError) as error:
        raise BodyRefused("form_unreadable", f"The multipart body cannot be read: {error}") from None
    try:
        yield form
    finally:
        await form.close()


async def form_picture(form: FormData, field: str, max_image_bytes: int) -> bytes | str | None:
    """The picture in `field`, its bytes or its address. Raises `BodyRefused`, `ImageRefused`."""
    given = [value for name, value in form.multi_items() if name == field and value != ""]
    files = [name for name, value in form.multi_items() if isinstance(value, UploadFile) and name != field]
    if files:
        raise BodyRefused(
            "unexpected_file", f"The file field {files[0]!r} is not known: the picture goes in `{field}`."
        )
    if len(given) > 1:
        raise BodyRefused("image_given_twice", f"Send one `{field}`.")
    if not given:
        return None
    image = given[0]
    if isinstance(image, str):
        return picture_text(image, max_image_bytes)
    if not image.filename and not image.size:
        return None  # what a browser sends for a file field left empty
    if image.size is not None and image.size > max_image_bytes:
        raise too_many_bytes(max_image_bytes)
    return await image.read()


def form_fields(form: FormData, picture_field: str) -> dict[str, Any]:
    """Every other field of a form, by name. Raises `BodyRefused`."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == picture_field or value == "":  # a form field left empty is a field left out
            continue
        if name in fields:
            raise BodyRefused("field_given_twice", f"The field {name!r} is given twice.")
        fields[name] = value
    named = {name: fields.pop(name) for name in tuple(fields) if _METADATA.fullmatch(name)}  # how SDKs write objects
    if named and "metadata" in fields:
        raise BodyRefused("field_given_twice", "The field 'metadata' is given twice.")
    if named:
        fields["metadata"] = {name[len("metadata["):-1]: value for name, value in named.items()}
    if isinstance(metadata := fields.get("metadata"), str):
        try:
            fields["metadata"] = json.loads(metadata)
        except ValueError:
            raise BodyRefused("metadata_unreadable", "`metadata` in a form is a JSON object of strings.") from None
    return fields

