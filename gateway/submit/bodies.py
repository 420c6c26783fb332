"""The bodies that ask for a video, in every encoding, with at most one picture to begin with and one to end with."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from contracts.jobs import GenerateOptions, GenerateRequest
from contracts.openai.videos import VideoCreate, VideoOptions
from contracts.refusal import Refusal
from gateway.jobs.job import JobRecord
from gateway.submit.conversations import Conversation
from gateway.submit.fields import (
    MAX_FIELDS_BYTES,
    BodyRefused,
    FieldsRefused,
    Part,
    parse_multipart,
    parse_urlencoded,
    read_object,
)
from gateway.submit.images.refusals import too_many_bytes
from gateway.submit.intake import Intake
from gateway.submit.picture_text import picture_text

_ROOM = 1024 * 1024  # what the other fields and the framing may take beside the picture
_URLENCODED_BYTES = 4 * 1024 * 1024  # for words: each %xx costs its decoder sixty bytes
_LAST = "last_image"
_REFERENCE = "input_reference"  # as OpenAI calls the picture
_METADATA = re.compile(r"metadata\[.+\]")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was asked, and the picture as it came: its bytes (unchecked), its address, a file uploaded before, what
    the remixed job began with, or the last one of the conversation.
    """

    options: GenerateOptions
    image: bytes | None = None
    image_url: str | None = None
    file_id: str | None = None
    last_image: bytes | str | None = None
    """The picture to end with: its bytes, unchecked, or its address."""
    remixed_from: JobRecord | None = None
    conversation: Conversation | None = None
    extends: JobRecord | None = None
    """The job whose video this one goes on from."""

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.image, self.image_url, self.file_id)) > 1:
            raise BodyRefused("image_given_twice", "Send one picture: either the picture itself or `file_id`.")

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture at all."""
        remixes_one = self.remixed_from is not None and self.remixed_from.picture is not None
        talked_of_one = self.conversation is not None and bool(self.conversation.pictures)
        continues_one = self.options.extend_from is not None
        sends_one = (self.image, self.image_url, self.file_id) != (None, None, None)
        return continues_one or remixes_one or talked_of_one or sends_one

    def fingerprint(self) -> str:
        """SHA-256 in hex of what was asked; two encodings of the same wish have the same. Hashes megabytes."""
        picture = None if self.image is None else hashlib.sha256(self.image).hexdigest()
        asked = [
            self.options.model_dump(mode="json", exclude_defaults=True), picture, self.image_url, self.file_id,
            self.remixed_from.id if self.remixed_from else None,
        ]
        if self.last_image is not None:
            last = self.last_image
            asked.append(last if isinstance(last, str) else hashlib.sha256(last).hexdigest())
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


Form = Sequence[Part]


def read_submission(request: Request, intake: Intake) -> AbstractAsyncContextManager[Submission]:
    """Read any encoding of `POST /generate`; what was read counts as on its way in until the block ends.

    Raises:
        BodyTooLarge, IntakeFull, DiskFull, ImageRefused, BodyRefused, FieldsRefused: see there.
    """
    limit = intake.max_image_bytes

    def from_form(form: Form) -> Submission:
        picture = form_picture(form, "image", limit, beside=_LAST)
        with named(_LAST):
            last = form_picture(form, _LAST, limit, beside="image")
        return submission_of(GenerateRequest.model_validate(form_fields(form, "image", _LAST)), picture, last)

    def from_json(fields: dict[str, Any]) -> Submission:
        asked = GenerateRequest.model_validate(fields)
        picture = picture_text(asked.image, limit)
        with named(_LAST):
            return submission_of(asked, picture, picture_text(asked.last_image, limit))

    return read_body(request, intake, from_form, from_json, pictures=2)


def read_video(request: Request, intake: Intake) -> AbstractAsyncContextManager[Submission]:
    """Read any encoding of `POST /v1/videos`: OpenAI's fields, and ours beside them; else as `read_submission`."""
    limit = intake.max_image_bytes

    def from_json(fields: dict[str, Any]) -> Submission:
        asked = VideoCreate.model_validate(fields)
        reference = asked.input_reference
        picture = picture_text(reference.image_url if reference else None, limit)
        return _submission(asked.model_dump(exclude={_REFERENCE}), picture, reference.file_id if reference else None)

    return read_body(request, intake, lambda form: _from_form(form, limit), from_json)


def _from_form(form: Form, max_image_bytes: int) -> Submission:
    # An object in a form: the SDK writes `input_reference[file_id]`.
    inner = {part.name: part for part in form if part.name in (f"{_REFERENCE}[file_id]", f"{_REFERENCE}[image_url]")}
    picture = form_picture(form, _REFERENCE, max_image_bytes)
    fields = form_fields([part for part in form if part.name not in inner], _REFERENCE)
    texts = {name: part.text for name, part in inner.items() if part.data}
    file_id, image_url = texts.get(f"{_REFERENCE}[file_id]"), texts.get(f"{_REFERENCE}[image_url]")
    if image_url is not None and picture is not None:
        raise BodyRefused("image_given_twice", f"Send one `{_REFERENCE}`.", _REFERENCE)
    if image_url is not None:
        picture = picture_text(image_url, max_image_bytes)
    return _submission(VideoOptions.model_validate(fields).model_dump(), picture, file_id)


def _submission(options: dict[str, Any], picture: bytes | str | None, file_id: str | None) -> Submission:
    return Submission(
        options=GenerateOptions.model_validate(options), image=picture if isinstance(picture, bytes) else None,
        image_url=picture if isinstance(picture, str) else None, file_id=file_id,
    )


def read_body(
    request: Request, intake: Intake, from_form: Callable[[Form], T], from_json: Callable[[dict[str, Any]], T] | None,
    *, pictures: int = 1,
) -> AbstractAsyncContextManager[T]:
    """What one of the two makes of the body, which has room for so many pictures, or one in base64.

    Raises:
        BodyTooLarge, IntakeFull, DiskFull, BodyRefused, FieldsRefused, and what the two raise.
    """
    kind = body_kind(request)
    limit = max(intake.max_image_bytes * 4 // 3, intake.max_image_bytes * pictures) + _ROOM
    if from_json is None and kind != "form":
        raise BodyRefused("unsupported_media_type", "Send multipart/form-data: curl -F file=@cat.jpg")

    def parse(body: bytes) -> T:
        try:
            if kind == "json" and from_json is not None:
                return from_json(read_object(body))
            if kind == "words":
                return from_form(parse_urlencoded(body))
            return from_form(parse_multipart(body, request.headers["content-type"]))
        except ValidationError as error:
            raise FieldsRefused(error) from None

    return intake.reading(request, min(limit, _URLENCODED_BYTES) if kind == "words" else limit, parse)


def read_fields(
    request: Request, intake: Intake, parse: Callable[[dict[str, Any]], T]
) -> AbstractAsyncContextManager[T]:
    """A JSON body without a picture. Raises `BodyTooLarge`, `BodyRefused`, `FieldsRefused`."""

    def read(body: bytes) -> T:
        try:
            return parse(read_object(body))
        except ValidationError as error:
            raise FieldsRefused(error) from None

    return intake.reading(request, MAX_FIELDS_BYTES, read)


def submission_of(
    asked: GenerateRequest, picture: bytes | str | None, last: bytes | str | None = None
) -> Submission:
    """The submission of a validated body; `picture` and `last` are their bytes or their addresses."""
    return Submission(
        options=GenerateOptions.model_validate(asked.model_dump(exclude={"image", _LAST, "file_id"})), last_image=last,
        image=picture if isinstance(picture, bytes) else None,
        image_url=picture if isinstance(picture, str) else None, file_id=asked.file_id,
    )


@contextmanager
def named(field: str) -> Iterator[None]:
    """Where `image` is refused within, it is the image in `field`."""
    try:
        yield
    except Refusal as error:
        if error.field == "image":
            error.field = field
        raise


def body_kind(request: Request) -> Literal["form", "words", "json"]:
    """Which of the encodings the body has; raises `BodyRefused` where it has none."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return "form"
    if kind == "application/x-www-form-urlencoded":
        return "words"
    if kind == "application/json" or kind.endswith("+json"):
        return "json"
    if not kind and request.headers.get("content-length", "0") == "0":
        raise BodyRefused("empty_body", "The request is empty: send a picture as `image`, or words as `prompt`.")
    raise BodyRefused(
        "unsupported_media_type",
        "Send multipart/form-data (curl -F image=@cat.jpg) or application/json, not " + (kind or "an unnamed type."),
    )


def form_picture(form: Form, field: str, max_image_bytes: int, *, beside: str | None = None) -> bytes | str | None:
    """The picture in `field`, its bytes or its address; `beside` it may be another. Raises `BodyRefused`,
    `ImageRefused`."""
    given = [part for part in form if part.name == field and not part.left_empty]
    for part in form:
        if part.filename is not None and part.name not in (field, beside) and not part.left_empty:
            raise BodyRefused(
                "unexpected_file", f"The file field {part.name!r} is not known: the picture goes in `{field}`.",
                part.name,
            )
    if len(given) > 1:
        raise BodyRefused("image_given_twice", f"Send one `{field}`.", field)
    if not given:
        return None
    part = given[0]
    if part.filename is None and part.data.isascii() and not part.media_type.startswith(("image/", "application/oct")):
        return picture_text(part.text, max_image_bytes)  # no picture's bytes are ASCII alone
    if len(part.data) > max_image_bytes:
        raise too_many_bytes(max_image_bytes)
    return part.data


def form_fields(form: Form, *picture_fields: str) -> dict[str, Any]:
    """Every other field of a form, by name. Raises `BodyRefused`."""
    fields: dict[str, Any] = {}
    own = [part for part in form if part.name not in picture_fields and part.data]  # one left empty is one left out
    if sum(len(part.data) for part in own) > MAX_FIELDS_BYTES:
        raise BodyRefused(
            "too_many_fields", f"Beside its picture a form has at most {MAX_FIELDS_BYTES // 1024} KiB of text."
        )
    for part in own:
        if part.name in fields:
            raise BodyRefused("field_given_twice", f"The field {part.name!r} is given twice.", part.name)
        fields[part.name] = part.text
    return _with_metadata(_with_loras(fields))


def _with_loras(fields: dict[str, Any]) -> dict[str, Any]:
    if isinstance(loras := fields.get("loras"), str):
        try:
            fields["loras"] = read_object(b'{"loras": %b}' % loras.encode())["loras"]
        except BodyRefused:
            raise BodyRefused(
                "loras_unreadable", "`loras` in a form is a JSON list, such as [{\"id\": \"style\", \"scale\": 0.8}].",
                "loras",
            ) from None
    return fields


def _with_metadata(fields: dict[str, Any]) -> dict[str, Any]:
    named = {name: fields.pop(name) for name in tuple(fields) if _METADATA.fullmatch(name)}  # how SDKs write objects
    if named and "metadata" in fields:
        raise BodyRefused("field_given_twice", "The field 'metadata' is given twice.", "metadata")
    if named:
        fields["metadata"] = {name[len("metadata["):-1]: value for name, value in named.items()}
    if isinstance(metadata := fields.get("metadata"), str):
        try:
            fields["metadata"] = read_object(metadata.encode())
        except BodyRefused:
            raise BodyRefused(
                "metadata_unreadable", "`metadata` in a form is a JSON object of strings.", "metadata"
            ) from None
    return fields
