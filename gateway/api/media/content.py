"""A job's files over HTTP: `ETag`, `Range` and `HEAD` on every one of them."""

from pathlib import Path
from typing import Any, Literal

from anyio.to_thread import run_sync as off_loop
from fastapi import Request
from fastapi.responses import Response

from contracts.refusal import Refusal
from gateway.api.media.ranges import RangedFile, bound_to_another, is_known
from gateway.jobs.job import JobRecord, StoredPicture
from gateway.runtime import Gateway
from gateway.storage.files import VIDEO_FILE

Variant = Literal["video", "thumbnail", "spritesheet", "input"]

_BYTES = {"schema": {"type": "string", "format": "binary"}}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"video/mp4": _BYTES, "image/png": _BYTES, "image/jpeg": _BYTES}},
    206: {"description": "The wanted range of it."},
    304: {"description": "Unchanged."},
}


async def serve(job: JobRecord, variant: Variant, request: Request, gateway: Gateway) -> Response:
    """One file of the job.

    Raises:
        Refusal: there is none of this kind, or not yet.
    """
    path, media_type, sha256 = _artifact(job, variant, gateway)
    return await _send(path, media_type, sha256, request, job.id, gateway)


async def video_path(job: JobRecord, gateway: Gateway) -> Path:
    """Where the job's video lies on this disk; raises `Refusal` where there is none."""
    path, _, _ = _artifact(job, "video", gateway)
    await off_loop(gateway.files.bring, path)
    return path


async def serve_picture(folder_id: str, picture: StoredPicture, request: Request, gateway: Gateway) -> Response:
    """A stored picture of a job or an uploaded file."""
    return await _send(
        gateway.files.path(folder_id, picture.file), picture.media_type, picture.sha256, request, folder_id, gateway
    )


async def _send(
    path: Path, media_type: str, sha256: str, request: Request, name: str, gateway: Gateway
) -> Response:
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, max-age=31536000, immutable",
               "X-Content-Type-Options": "nosniff"}
    if is_known(request.headers, headers["ETag"]) and not bound_to_another(request.headers, headers["ETag"], 0):
        return Response(status_code=304, headers=headers)  # without fetching it from a bucket
    await off_loop(gateway.files.bring, path)
    try:
        stat = await off_loop(path.stat)
    except FileNotFoundError:
        raise Refusal(
            f"A file of {name} is no longer there.", status=404, code="file_missing", title="The file is gone"
        ) from None
    if bound_to_another(request.headers, headers["ETag"], stat.st_mtime):
        raise Refusal(
            "The file is not the one that the request is bound to: leave `If-Match` and its like out.", status=412,
            code="precondition_failed", title="Another file was meant",
        )
    if is_known(request.headers, headers["ETag"], stat.st_mtime):
        return Response(status_code=304, headers=headers)
    return RangedFile(
        path, headers=headers, media_type=media_type, stat_result=stat, filename=f"{name}{path.suffix}",
        content_disposition_type="inline",
    )


def _artifact(job: JobRecord, variant: Variant, gateway: Gateway) -> tuple[Path, str, str]:
    if job.expired_at is not None:
        raise Refusal(
            "This server keeps files for a while, and that is over: send the request again for a new video.",
            status=410, code="expired", title="The files have expired", job_id=job.id,
        )
    if variant == "input":
        return _picture(job, job.picture, "This job was made from words alone.", gateway)
    if job.state != "completed" or job.video is None:
        hint = "its error says why" if job.state == "failed" else "follow its events, or ask again with ?wait=30"
        raise Refusal(
            f"The job is {job.state}: {'it will have none' if job.finished else 'not yet'}; {hint}."
            if job.state != "canceled" else "The job was canceled: it has no video.",
            status=409, code="video_not_available", title="There is no video", job_id=job.id,
        )
    if variant == "video":
        return gateway.files.path(job.id, VIDEO_FILE), "video/mp4", job.video.sha256
    preview = job.thumbnail if variant == "thumbnail" else job.spritesheet
    return _picture(job, preview, f"The video service made no {variant} of this video.", gateway)


def _picture(job: JobRecord, picture: StoredPicture | None, absent: str, gateway: Gateway) -> tuple[Path, str, str]:
    if picture is None:
        raise Refusal(absent, status=404, code="no_picture", title="No picture", job_id=job.id)
    return gateway.files.path(job.id, picture.file), picture.media_type, picture.sha256
