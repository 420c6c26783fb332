"""The door: a request is checked completely before anything of it is stored."""

from contextlib import suppress
from dataclasses import dataclass, replace

from contracts.resolve import ParameterRefused
from gateway.auth.addresses import AddressRefused
from gateway.auth.callers import Caller, priority_for
from gateway.conversations.store import ConversationStore
from gateway.images.check import CheckedImage
from gateway.intake.refusals import BodyRefused
from gateway.jobs.job import JobNotFound, JobRecord, KeyReused, NewJob, QueueFull, new_job_id
from gateway.jobs.ledger import Ledger
from gateway.run.webhooks import check_address
from gateway.services.catalog import Catalog
from gateway.settings import GatewaySettings
from gateway.storage.files import EXTENDED_FILE, LocalFiles
from gateway.storage.room import Room
from gateway.submit.bodies import Submission
from gateway.submit.parameters import framing_warnings, resolve
from gateway.submit.pictures import Pictures
from gateway.submit.remix import continued, extended
from gateway.threads import off_loop
from web.calls import current_call

MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Turns requests into queued jobs."""

    settings: GatewaySettings
    ledger: Ledger
    files: LocalFiles
    room: Room
    pictures: Pictures
    catalog: Catalog
    conversations: ConversationStore

    async def accept(
        self, submission: Submission, caller: Caller, idempotency_key: str | None = None
    ) -> tuple[JobRecord, bool]:
        """Check, store and queue a request on behalf of `caller`; true where an earlier one had made the job already.

        Raises:
            BodyRefused, ParameterRefused, DiskFull, QueueFull, OwnerQueueFull, KeyReused, and what `Pictures.of`
                raises: nothing is left behind.
            ConversationNotFound, JobNotFound: the caller has no such conversation, or job to go on from.
            ServiceError: the video service was never reached, so nothing can be checked against its model.

        Canceled, or cut off from the database, in the middle of its commit, it cannot know whether the job is there:
        the picture stays, and the sweep removes it where no job names it.
        """
        options = submission.options
        if not submission.has_picture and options.prompt is None and options.conversation is None:
            raise BodyRefused("nothing_to_animate", "Send a picture as `image`, or words as `prompt`, or both.")
        fingerprint = None
        if idempotency_key is not None:
            _check_key(idempotency_key)
            fingerprint = await off_loop(submission.fingerprint)
            before = await self.ledger.made_before(caller.owner, idempotency_key, fingerprint)
            if before is not None:
                return before, True
        await self.room.check()
        await self._check_webhook(options.webhook_url)
        if options.conversation is not None:
            submission = await self._continued(submission, options.conversation, caller)
        if options.extend_from is not None:
            submission = extended(submission, await self._own(options.extend_from, caller))
        picture, last = await self.pictures.of(submission, caller), await self.pictures.last_of(submission)
        job = await self._new_job(submission, caller, picture, last, idempotency_key, fingerprint)
        clip = None if submission.extends is None else await self.pictures.clip_of(submission.extends)
        entered = await self._enter(job, caller, picture, last, clip)
        if options.conversation is not None:
            await off_loop(self.conversations.note_job, options.conversation, entered[0].id)
        return entered

    async def _own(self, job_id: str, caller: Caller) -> JobRecord:
        job = await self.ledger.get(job_id)
        if job.owner != caller.owner:
            raise JobNotFound(job_id)
        return job

    async def _continued(self, submission: Submission, conversation_id: str, caller: Caller) -> Submission:
        conversation = await off_loop(self.conversations.get, conversation_id, caller.owner)
        before = None
        if conversation.job_id is not None:
            with suppress(JobNotFound):  # it was removed
                before = (await self.ledger.get(conversation.job_id)).parameters
        return continued(submission, conversation, before)

    async def _new_job(
        self, submission: Submission, caller: Caller, picture: CheckedImage | None, last: CheckedImage | None,
        idempotency_key: str | None, fingerprint: str | None,
    ) -> NewJob:
        videos, vls = await self.catalog.video_models(), await self.catalog.known_vl_models()
        size = None if picture is None else (picture.width, picture.height)
        priority, demoted = priority_for(caller, submission.options.priority)
        job_id, call = new_job_id(), current_call()
        parameters = resolve(
            submission.options, videos, vls, size, await self.catalog.absent_models(), to_last_image=last is not None)
        found = tuple(said for image in (picture, last) if image for said in image.warnings)
        found += framing_warnings(parameters, videos, size)
        return NewJob(
            id=job_id, owner=caller.owner, request=submission.options, parameters=parameters, picture=None,
            priority=priority, warnings=found + demoted,
            request_id=job_id if call is None else call.request_id, idempotency_key=idempotency_key,
            fingerprint=fingerprint, remixed_from=submission.remixed_from.id if submission.remixed_from else None,
        )

    async def _enter(
        self, job: NewJob, caller: Caller, picture: CheckedImage | None, last: CheckedImage | None, clip: bytes | None
    ) -> tuple[JobRecord, bool]:
        if picture is not None:
            job = replace(job, picture=await self.pictures.store(job.id, "input", picture))
        if last is not None:
            job = replace(job, last_picture=await self.pictures.store(job.id, "last", last))
        if clip is not None:  # a copy: the other job may be removed before this one renders
            await off_loop(self.files.write, job.id, EXTENDED_FILE, clip)
        try:
            stored = await self.ledger.add(job, self.settings.max_queued_jobs, caller.max_jobs)
        except (QueueFull, KeyReused):  # surely no row names the picture; of whatever else happens here, one may
            await off_loop(self.files.remove_job, job.id)
            raise
        if stored.id != job.id:  # the same request, sent twice at once, came first
            await off_loop(self.files.remove_job, job.id)
            return stored, True
        return stored, False

    async def _check_webhook(self, url: str | None) -> None:
        if url is None:
            return
        try:
            await check_address(url, self.settings.webhook_rules)
        except AddressRefused as error:
            raise ParameterRefused(f"webhook_{error.code}", "webhook_url", error.detail) from None


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise BodyRefused(
            "idempotency_key_invalid", f"An Idempotency-Key has 1 to {MAX_KEY_CHARS} printable characters."
        )
