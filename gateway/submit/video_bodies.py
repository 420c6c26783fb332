"""The bodies of `POST /v1/videos`: OpenAI's fields in both of its encodings, and ours beside them."""

from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.requests import Request

from contracts.jobs import GenerateOptions
from contracts.openai.videos import VideoCreate, VideoOptions
from gateway.submit.bodies import Form, Submission, form_fields, form_picture, read_body
from gateway.submit.intake import Intake
from gateway.submit.picture_text import picture_text
from gateway.submit.refusals import BodyRefused

_FIELD = "input_reference"


def read_video(request: Request, intake: Intake) -> AbstractAsyncContextManager[Submission]:
    """Read any encoding; what was read counts as on its way in until the block ends.

    Raises:
        BodyTooLarge, IntakeFull, DiskFull, ImageRefused, BodyRefused, FieldsRefused: see there.
    """
    limit = intake.max_image_bytes

    def from_json(fields: dict[str, Any]) -> Submission:
        asked = VideoCreate.model_validate(fields)
        reference = asked.input_reference
        picture = picture_text(reference.image_url if reference else None, limit)
        return _submission(asked.model_dump(exclude={_FIELD}), picture, reference.file_id if reference else None)

    return read_body(request, intake, lambda form: _from_form(form, limit), from_json)


def _from_form(form: Form, max_image_bytes: int) -> Submission:
    # An object in a form: the SDK writes `input_reference[file_id]`.
    named = {part.name: part for part in form if part.name in (f"{_FIELD}[file_id]", f"{_FIELD}[image_url]")}
    picture = form_picture(form, _FIELD, max_image_bytes)
    fields = form_fields([part for part in form if part.name not in named], _FIELD)
    texts = {name: part.text for name, part in named.items() if part.data}
    file_id, image_url = texts.get(f"{_FIELD}[file_id]"), texts.get(f"{_FIELD}[image_url]")
    if image_url is not None and picture is not None:
        raise BodyRefused("image_given_twice", f"Send one `{_FIELD}`.", _FIELD)
    if image_url is not None:
        picture = picture_text(image_url, max_image_bytes)
    return _submission(VideoOptions.model_validate(fields).model_dump(), picture, file_id)


def _submission(options: dict[str, Any], picture: bytes | str | None, file_id: str | None) -> Submission:
    return Submission(
        options=GenerateOptions.model_validate(options), image=picture if isinstance(picture, bytes) else None,
        image_url=picture if isinstance(picture, str) else None, file_id=file_id,
    )
