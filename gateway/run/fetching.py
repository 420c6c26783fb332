"""What a completed render leaves with its job: the MP4, marked as made by AI on its way to our disk, and its pictures.

The service that rendered the video makes the pictures, so nothing here decodes video.
"""

import asyncio
import logging
from functools import partial
from typing import Final

from anyio.to_thread import run_sync as off_loop

from contracts.videos import RenderFile, RenderResult
from gateway.jobs.job import JobRecord, StoredPicture
from gateway.services.errors import ServiceError
from gateway.services.video import VideoClient
from gateway.storage.files import LAST_FRAME_FILE, VIDEO_FILE, LocalFiles, StoredFile
from gateway.storage.provenance.marking import Made, Marker, NotMarked

log = logging.getLogger(__name__)

_UNMARKED = "The video could not be signed as made by AI: the server's log has the cause."
_PICTURES: Final[dict[RenderFile, str]] = {
    "thumbnail": "thumbnail.jpg", "spritesheet": "spritesheet.jpg", "last_frame": LAST_FRAME_FILE,
}


async def fetch_video(
    job: JobRecord, result: RenderResult, client: VideoClient, files: LocalFiles, marker: Marker | None
) -> tuple[StoredFile, str | None]:
    """Store the MP4 with the job; returns what was stored, and a warning where it could not be marked.

    Raises what the client and `LocalFiles.receive` raise.
    """
    receive = partial(files.receive, job.id, VIDEO_FILE, sha256=result.sha256)
    if marker is None:
        return await receive(client.content(job.id)), None
    made = Made(
        job_id=job.id, model=result.model, revision=result.revision, prompt=job.actual_prompt,
        input_sha256=job.picture.sha256 if job.picture else None,
    )
    try:
        return await receive(client.content(job.id), rewrite=partial(marker.mark, made=made)), None
    except NotMarked:
        return await receive(client.content(job.id)), _UNMARKED


async def fetch_pictures(
    job_id: str, result: RenderResult, client: VideoClient, files: LocalFiles
) -> dict[RenderFile, StoredPicture | None]:
    """Store each picture that goes with the video. A video without one is a video all the same."""
    found = await asyncio.gather(*(_fetch_picture(job_id, kind, result, client, files) for kind in _PICTURES))
    return dict(zip(_PICTURES, found, strict=True))


async def _fetch_picture(
    job_id: str, kind: RenderFile, video: RenderResult, client: VideoClient, files: LocalFiles
) -> StoredPicture | None:
    try:
        stored = await files.receive(job_id, _PICTURES[kind], client.content(job_id, kind))
    except ServiceError as error:
        log.warning("no %s of %s: %s", kind, job_id, error, extra={"job_id": job_id})
        return None
    return StoredPicture(
        file=_PICTURES[kind], media_type="image/png" if kind == "last_frame" else "image/jpeg",
        num_bytes=stored.num_bytes, sha256=stored.sha256, width=video.width, height=video.height,
    )


async def remove_fetched(job_id: str, files: LocalFiles) -> None:
    """Remove all of it."""
    for name in (VIDEO_FILE, *_PICTURES.values()):
        await off_loop(files.remove, job_id, name)
