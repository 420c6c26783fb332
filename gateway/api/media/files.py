"""`/v1/files`: a picture uploaded once, for any number of requests."""

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync as off_loop
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, Response

from contracts.openai.files import UploadedFile, UploadedFileDeleted, UploadedFilePage
from contracts.openai.pages import Order
from gateway.api.access import After, OpenGateway, PageSize, TheCaller
from gateway.api.media.content import FILE_RESPONSES, serve_picture
from gateway.api.openapi import problems
from gateway.submit.bodies import Form, form_fields, form_picture, read_body
from gateway.submit.fields import BodyRefused
from gateway.submit.intake import Intake
from gateway.submit.uploaded import NewUpload, TooManyFiles, UploadRecord, new_file_id

router = APIRouter(prefix="/v1/files", tags=["files"])

FileId = Annotated[str, Path(description="The file's `id`.", max_length=64, examples=["file_5f0c6b1e9a2d4c7f"])]
_MAX_NAME_CHARS = 255
_MAX_PURPOSE_CHARS = 64
_UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
    "type": "object", "additionalProperties": False, "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "A still picture of 64 px a side or more."},
        "purpose": {"type": "string", "maxLength": _MAX_PURPOSE_CHARS, "default": "vision"},
    },
}}}}}


@router.post(
    "", status_code=201, responses=problems(409, 413, 415, 422, 503, 507), openapi_extra=_UPLOAD,
    summary="Upload a picture",
)
async def upload_file(request: Request, caller: TheCaller, gateway: OpenGateway) -> UploadedFile:
    """The picture is checked as in `POST /generate`, and stored as it will be used. Refer to it as `file_id`."""
    await gateway.room.check()
    async with _reading(request, gateway.intake) as (name, purpose, data):
        picture = await gateway.images.checked(data)
    file_id = new_file_id()
    stored = await gateway.images.store(file_id, "picture", picture)
    upload = NewUpload(
        id=file_id, owner=caller.owner, filename=name, purpose=purpose, picture=stored, warnings=picture.warnings
    )
    try:
        return _present(await off_loop(gateway.uploads.add, upload, gateway.settings.max_files))
    except TooManyFiles:  # surely no row names the picture; of whatever else happens here, one may
        await off_loop(gateway.files.remove_job, file_id)
        raise


@router.get("", responses=problems(404, 422), summary="Uploaded files")
async def list_files(
    caller: TheCaller, gateway: OpenGateway, after: After = None, limit: PageSize = 20,
    order: Annotated[Order, Query(description="By the time of upload.")] = "desc",
    purpose: Annotated[str | None, Query(max_length=_MAX_PURPOSE_CHARS, description="Only with this one.")] = None,
) -> UploadedFilePage:
    """A page of files, newest first unless asked otherwise."""
    beyond = None if after is None else (await off_loop(gateway.uploads.get, after, caller.owner)).sequence
    found = await off_loop(partial(
        gateway.uploads.page, limit + 1, caller.owner, beyond=beyond, oldest_first=order == "asc", purpose=purpose,
    ))
    return UploadedFilePage.of([_present(upload) for upload in found], limit)


@router.get("/{file_id}", responses=problems(404, 422), summary="One file")
async def get_file(file_id: FileId, caller: TheCaller, gateway: OpenGateway) -> UploadedFile:
    """What is known of it."""
    return _present(await off_loop(gateway.uploads.get, file_id, caller.owner))


@router.get(
    "/{file_id}/content", response_class=FileResponse, responses={**FILE_RESPONSES, **problems(404, 412, 416, 422)},
    summary="The picture itself",
)
async def get_file_content(file_id: FileId, request: Request, caller: TheCaller, gateway: OpenGateway) -> Response:
    """The checked picture, with `ETag` and `Range`."""
    upload = await off_loop(gateway.uploads.get, file_id, caller.owner)
    return await serve_picture(upload.id, upload.picture, request, gateway)


@router.delete("/{file_id}", responses=problems(404, 422), summary="Delete a file")
async def delete_file(file_id: FileId, caller: TheCaller, gateway: OpenGateway) -> UploadedFileDeleted:
    """The picture is gone; jobs that were made from it keep their own copy."""
    await off_loop(gateway.uploads.remove, file_id, caller.owner)
    await off_loop(gateway.files.remove_job, file_id)
    return UploadedFileDeleted(id=file_id)


def _reading(request: Request, intake: Intake) -> AbstractAsyncContextManager[tuple[str, str, bytes]]:
    """The name, purpose and bytes of an upload."""
    return read_body(request, intake, lambda form: _upload_of(form, intake.max_image_bytes), None)


def _upload_of(form: Form, max_image_bytes: int) -> tuple[str, str, bytes]:
    data = form_picture(form, "file", max_image_bytes)
    fields = form_fields(form, "file")
    purpose = fields.pop("purpose", "vision")
    if fields:
        name = next(iter(fields))
        raise BodyRefused("unknown_field", f"{name!r} is not known here: send `file` and `purpose`.", name)
    if len(purpose) > _MAX_PURPOSE_CHARS:
        raise BodyRefused("purpose_too_long", f"`purpose` has at most {_MAX_PURPOSE_CHARS} characters.", "purpose")
    if not isinstance(data, bytes):
        raise BodyRefused("file_missing", "Send the picture as the file `file`: curl -F file=@cat.jpg", "file")
    name = next(part.filename for part in form if part.name == "file" and not part.left_empty)
    return _plain(name or "picture"), purpose, data


def _plain(name: str) -> str:
    """A name to show, never to open."""
    return "".join(character for character in name if character.isprintable())[-_MAX_NAME_CHARS:] or "picture"


def _present(upload: UploadRecord) -> UploadedFile:
    picture = upload.picture
    return UploadedFile(
        id=upload.id, bytes=picture.num_bytes, created_at=int(upload.created_at), filename=upload.filename,
        purpose=upload.purpose, media_type=picture.media_type, width=picture.width, height=picture.height,
        sha256=picture.sha256, warnings=list(upload.warnings),
    )
