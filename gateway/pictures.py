"""The picture of a request, from wherever it comes: sent along, fetched from its address, or uploaded before."""

import hashlib

from anyio import to_thread

from gateway.bodies import Submission
from gateway.callers import Caller
from gateway.fetch import fetch_picture
from gateway.jobs import StoredPicture
from gateway.ledger import off_loop
from gateway.runtime import Gateway
from gateway.uploads import Picture, check_picture

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}


async def picture_of(submission: Submission, caller: Caller, gateway: Gateway) -> Picture | None:
    """The checked picture of a submission, `None` where it has words alone.

    Raises:
        PictureRefused: it is no picture that we take.
        AddressRefused, FetchFailed: it could not be had from its address.
        UploadNotFound: the caller has no such file.
    """
    if submission.file_id is not None:
        upload = await off_loop(gateway.uploads.get, submission.file_id, caller.owner)
        return await read_picture(upload.id, upload.picture, upload.warnings, gateway)
    before = submission.remixed_from
    if before is not None and before.picture is not None:
        return await read_picture(before.id, before.picture, (), gateway)
    data = submission.image
    if submission.image_url is not None:
        data = await fetch_picture(submission.image_url, gateway.fetching)
    return None if data is None else await checked(data, gateway)


async def checked(image: bytes, gateway: Gateway) -> Picture:
    """The picture, decoded and encoded anew in a thread, few at a time."""
    return await to_thread.run_sync(check_picture, image, gateway.picture_limits, limiter=gateway.decodes)


async def read_picture(
    folder_id: str, stored: StoredPicture, warnings: tuple[str, ...], gateway: Gateway
) -> Picture:
    """A picture that was checked and stored before, under the id of its job or file."""
    path = gateway.files.path(folder_id, stored.file)
    await off_loop(gateway.files.bring, path)
    data = await off_loop(path.read_bytes)
    return Picture(
        data=data, media_type=stored.media_type, width=stored.width, height=stored.height, warnings=warnings
    )


async def store_picture(folder_id: str, name: str, picture: Picture, gateway: Gateway) -> StoredPicture:
    """Write a checked picture to disk under the id of its job or file."""
    file = f"{name}{_SUFFIX[picture.media_type]}"
    await off_loop(gateway.files.write, folder_id, file, picture.data)
    return StoredPicture(
        file=file, media_type=picture.media_type, num_bytes=len(picture.data),
        sha256=hashlib.sha256(picture.data).hexdigest(), width=picture.width, height=picture.height,
    )
