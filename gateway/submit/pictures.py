"""The picture of a request, from wherever it comes: sent along, fetched from its address, or uploaded before."""

import hashlib
from dataclasses import dataclass

from gateway.auth.callers import Caller
from gateway.images.check import CheckedImage
from gateway.images.decoders import Decoders
from gateway.images.refusals import named
from gateway.jobs.job import JobRecord, StoredPicture
from gateway.storage.files import LAST_FRAME_FILE, VIDEO_FILE, LocalFiles
from gateway.submit.bodies import Submission
from gateway.submit.fetch import Fetching, fetch_picture
from gateway.submit.remix import NotContinuable
from gateway.submit.uploaded import UploadStore
from gateway.threads import off_loop

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Finds, checks, stores and reads the pictures of requests."""

    files: LocalFiles
    uploads: UploadStore
    fetching: Fetching
    decoders: Decoders

    async def of(self, submission: Submission, caller: Caller) -> CheckedImage | None:
        """The checked picture of a submission, `None` where it has words alone.

        Raises:
            ImageRefused: it is no picture that we take.
            DecodersBusy: too many pictures wait to be checked.
            AddressRefused, FetchFailed: it could not be had from its address.
            UploadNotFound: the caller has no such file.
            NotContinuable: the last frame of the video to extend is not there.
        """
        if submission.file_id is not None:
            upload = await off_loop(self.uploads.get, submission.file_id, caller.owner)
            return await self.read(upload.id, upload.picture, upload.warnings)
        if submission.extends is not None:
            return await self._last_frame(submission.extends)
        before = submission.remixed_from
        if before is not None and before.picture is not None:
            return await self.read(before.id, before.picture, ())
        if submission.conversation is not None and submission.image is None and submission.image_url is None:
            stored = submission.conversation.pictures
            return await self.read(submission.conversation.id, stored[-1], ()) if stored else None
        return await self._sent(submission.image if submission.image_url is None else submission.image_url)

    async def last_of(self, submission: Submission) -> CheckedImage | None:
        """The checked picture to end with, if there is one. Raises what `of` does, with the name of its field."""
        before = submission.remixed_from
        if before is not None and before.last_picture is not None:
            return await self.read(before.id, before.last_picture, ())
        with named("last_image"):
            return await self._sent(submission.last_image)

    async def _last_frame(self, job: JobRecord) -> CheckedImage:
        assert job.video is not None
        try:
            data = await self._data(job.id, LAST_FRAME_FILE)
        except FileNotFoundError:
            raise NotContinuable(job.id, "its last frame was not kept, as of older videos; render it again") from None
        return CheckedImage(
            data=data, media_type="image/png", width=job.video.width, height=job.video.height, warnings=())

    async def clip_of(self, job: JobRecord) -> bytes:
        """The MP4 of a completed job. Raises `NotContinuable` where it is gone."""
        try:
            return await self._data(job.id, VIDEO_FILE)
        except FileNotFoundError:
            raise NotContinuable(job.id, "its files are gone") from None

    async def _data(self, folder_id: str, name: str) -> bytes:
        path = self.files.path(folder_id, name)
        await off_loop(self.files.bring, path)
        return await off_loop(path.read_bytes)

    async def _sent(self, picture: bytes | str | None) -> CheckedImage | None:
        return None if picture is None else await self.at(picture)

    async def at(self, given: bytes | str) -> CheckedImage:
        """The checked picture of these bytes, or at this address; raises as `of`."""
        return await self.checked(await fetch_picture(given, self.fetching) if isinstance(given, str) else given)

    async def checked(self, image: bytes) -> CheckedImage:
        """The picture, decoded and encoded anew in another process. Raises `ImageRefused`, `DecodersBusy`."""
        return await self.decoders.check(image)

    async def read(self, folder_id: str, stored: StoredPicture, warnings: tuple[str, ...]) -> CheckedImage:
        """A picture that was checked and stored before, under the id of its job or file."""
        return CheckedImage(
            data=await self._data(folder_id, stored.file), media_type=stored.media_type, width=stored.width,
            height=stored.height, warnings=warnings,
        )

    async def store(self, folder_id: str, name: str, picture: CheckedImage) -> StoredPicture:
        """Write a checked picture to disk under the id of its job or file."""
        file = f"{name}{_SUFFIX[picture.media_type]}"
        await off_loop(self.files.write, folder_id, file, picture.data)
        return StoredPicture(
            file=file, media_type=picture.media_type, num_bytes=len(picture.data),
            sha256=hashlib.sha256(picture.data).hexdigest(), width=picture.width, height=picture.height,
        )
