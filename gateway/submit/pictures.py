"""The picture of a request, from wherever it comes: sent along, fetched from its address, or uploaded before."""

import hashlib
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread

from gateway.auth.callers import Caller
from gateway.jobs.job import StoredPicture
from gateway.storage.files import LocalFiles
from gateway.submit.bodies import Submission
from gateway.submit.fetch import Fetching, fetch_picture
from gateway.submit.uploaded import UploadStore
from gateway.submit.uploads import Picture, PictureLimits, check_picture
from gateway.threads import off_loop

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Finds, checks, stores and reads the pictures of requests. `decodes` bounds how many are decoded at once."""

    files: LocalFiles
    uploads: UploadStore
    fetching: Fetching
    limits: PictureLimits
    decodes: CapacityLimiter

    async def of(self, submission: Submission, caller: Caller) -> Picture | None:
        """The checked picture of a submission, `None` where it has words alone.

        Raises:
            PictureRefused: it is no picture that we take.
            AddressRefused, FetchFailed: it could not be had from its address.
            UploadNotFound: the caller has no such file.
        """
        if submission.file_id is not None:
            upload = await off_loop(self.uploads.get, submission.file_id, caller.owner)
            return await self.read(upload.id, upload.picture, upload.warnings)
        before = submission.remixed_from
        if before is not None and before.picture is not None:
            return await self.read(before.id, before.picture, ())
        data = submission.image
        if submission.image_url is not None:
            data = await fetch_picture(submission.image_url, self.fetching)
        return None if data is None else await self.checked(data)

    async def checked(self, image: bytes) -> Picture:
        """The picture, decoded and encoded anew in a thread, few at a time; raises `PictureRefused`."""
        return await to_thread.run_sync(check_picture, image, self.limits, limiter=self.decodes)

    async def read(self, folder_id: str, stored: StoredPicture, warnings: tuple[str, ...]) -> Picture:
        """A picture that was checked and stored before, under the id of its job or file."""
        path = self.files.path(folder_id, stored.file)
        await off_loop(self.files.bring, path)
        data = await off_loop(path.read_bytes)
        return Picture(
            data=data, media_type=stored.media_type, width=stored.width, height=stored.height, warnings=warnings
        )

    async def store(self, folder_id: str, name: str, picture: Picture) -> StoredPicture:
        """Write a checked picture to disk under the id of its job or file."""
        file = f"{name}{_SUFFIX[picture.media_type]}"
        await off_loop(self.files.write, folder_id, file, picture.data)
        return StoredPicture(
            file=file, media_type=picture.media_type, num_bytes=len(picture.data),
            sha256=hashlib.sha256(picture.data).hexdigest(), width=picture.width, height=picture.height,
        )
