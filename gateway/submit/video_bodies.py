"""The bodies of `POST /v1/videos`: OpenAI's fields in both of its encodings, and ours beside them."""

from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request

from contracts.jobs import GenerateOptions
from contracts.openai_videos import VideoCreate, VideoOptions
from gateway.submit.bodies import (
    BodyRefused,
    Submission,
    body_kind,
    form_fields,
    form_picture,
    picture_text,
    read_form,
    read_json,
)
from gateway.threads import off_loop

_FIELD = "input_reference"


async def read_video(request: Request, max_image_bytes: int) -> Submission:
    """Read either encoding.

    Raises:
        BodyTooLarge, ImageRefused, BodyRefused: see there.
        pydantic.ValidationError: a field is unknown or out of bounds.
    """
    if body_kind(request) == "form":
        async with read_form(request, max_image_bytes) as form:
            return await _from_form(form, max_image_bytes)
    body = await read_json(request, max_image_bytes)

    def parse() -> Submission:
        asked = VideoCreate.model_validate_json(body)
        reference = asked.input_reference
        picture = picture_text(reference.image_url if reference else None, max_image_bytes)
        return _submission(asked.model_dump(exclude={_FIELD}), picture, reference.file_id if reference else None)

    return await off_loop(parse)


async def _from_form(form: FormData, max_image_bytes: int) -> Submission:
    fields = form_fields(form, _FIELD)
    picture = await form_picture(form, _FIELD, max_image_bytes)
    # An object in a form: the SDK writes `input_reference[file_id]`.
    file_id, image_url = fields.pop(f"{_FIELD}[file_id]", None), fields.pop(f"{_FIELD}[image_url]", None)
    if image_url is not None and picture is not None:
        raise BodyRefused("image_given_twice", f"Send one `{_FIELD}`.")
    if image_url is not None:
        picture = picture_text(image_url, max_image_bytes)
    return _submission(VideoOptions.model_validate(fields).model_dump(), picture, file_id)


def _submission(options: dict[str, Any], picture: bytes | str | None, file_id: str | None) -> Submission:
    return Submission(
        options=GenerateOptions.model_validate(options), image=picture if isinstance(picture, bytes) else None,
        image_url=picture if isinstance(picture, str) else None, file_id=file_id,
    )
