"""The pictures of a video: the service that rendered it makes them, so nothing here decodes video."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from contracts.videos import RenderFile
from gateway.jobs.job import StoredPicture
from gateway.services.errors import ServiceError
from gateway.services.video import Place
from gateway.storage.files import LAST_FRAME_FILE, LocalFiles

log = logging.getLogger(__name__)

PREVIEW_FILES: Final[Mapping[RenderFile, str]] = {
    "thumbnail": "thumbnail.jpg", "spritesheet": "spritesheet.jpg", "last_frame": LAST_FRAME_FILE,
}


async def keep_previews(
    job_id: str, files: LocalFiles, place: Place, size: tuple[int, int]
) -> dict[RenderFile, StoredPicture | None]:
    """Bring them to our disk, from where the video was rendered; a video without them is a video all the same.

    `size` is the video's (width, height) in pixels.
    """
    kept = await asyncio.gather(*(_keep(job_id, kind, files, place, size) for kind in PREVIEW_FILES))
    return dict(zip(PREVIEW_FILES, kept, strict=True))


async def _keep(
    job_id: str, kind: RenderFile, files: LocalFiles, place: Place, size: tuple[int, int]
) -> StoredPicture | None:
    try:
        stored = await files.receive(job_id, PREVIEW_FILES[kind], place.client.content(job_id, kind))
    except ServiceError as error:
        log.warning("no %s of %s: %s", kind, job_id, error, extra={"job_id": job_id})
        return None
    return StoredPicture(
        file=PREVIEW_FILES[kind], media_type="image/png" if kind == "last_frame" else "image/jpeg",
        num_bytes=stored.num_bytes, sha256=stored.sha256,
        width=size[0], height=size[1],
    )
