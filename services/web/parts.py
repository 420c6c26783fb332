"""A request of the inner wire as it arrives: JSON alone, or multipart of the JSON and its images."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from contracts.wire import MAX_BODY_BYTES, REQUEST_PART, ImageRequest

Asked = TypeVar("Asked", bound=ImageRequest)
_MAX_IMAGES = 4


def sent(kind: type[Asked]) -> Callable[[Request], Awaitable[Asked]]:
    """A dependency that reads the body as `kind`; raises `RequestValidationError`."""

    async def read(request: Request) -> Asked:
        is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
        words, images = await _parts(request) if is_form else (await request.body(), {})
        try:
            asked = kind.model_validate_json(words)
            return kind.model_validate(dict(asked) | images) if images else asked
        except ValidationError as error:
            raise in_body(error) from error

    return read


def in_body(error: ValidationError) -> RequestValidationError:
    """The same, said of the request's body."""
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()])


async def _parts(request: Request) -> tuple[str, dict[str, bytes]]:
    """The JSON, and the images by their names."""
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=_MAX_IMAGES, max_fields=1, max_part_size=MAX_BODY_BYTES)
    parser.spool_max_size = MAX_BODY_BYTES  # in memory, where the images are needed, not on disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from error
    words = form.get(REQUEST_PART)
    images = {name: await part.read() for name, part in form.multi_items() if isinstance(part, UploadFile)}
    await form.close()
    return words if isinstance(words, str) else "", images
