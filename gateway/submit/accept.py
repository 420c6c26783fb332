"""The door: a request is checked completely before anything of it is stored."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from anyio.to_thread import run_sync as off_loop

from contracts.jobs import EffectiveParameters, GenerateOptions
from contracts.models import AbsentModel, VideoModelInfo, VLModelInfo
from contracts.refusal import ParameterRefused
from contracts.resolve import find_model
from contracts.resolve import resolve as resolve_render
from contracts.sizes import cut_in_words, default_size
from gateway.auth.addresses import AddressRefused
from gateway.auth.callers import Caller, priority_for
from gateway.jobs.job import JobNotFound, JobRecord, KeyReused, NewJob, QueueFull, new_job_id
from gateway.jobs.ledger import Ledger
from gateway.run.webhooks import check_address
from gateway.services.catalog import Catalog
from gateway.settings import GatewaySettings
from gateway.storage.files import EXTENDED_FILE, LAST_FRAME_FILE, VIDEO_FILE, LocalFiles
from gateway.storage.room import Room
from gateway.submit.bodies import Submission, named
from gateway.submit.conversations import ConversationStore
from gateway.submit.fields import BodyRefused
from gateway.submit.images.check import CheckedImage
from gateway.submit.images.images import Images
from gateway.submit.remix import NotContinuable, continued, extended
from gateway.submit.uploaded import UploadStore
from web.calls import current_call

MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Turns requests into queued jobs."""

    settings: GatewaySettings
    ledger: Ledger
    files: LocalFiles
    room: Room
    images: Images
    uploads: UploadStore
    catalog: Catalog
    conversations: ConversationStore

    async def accept(
        self, submission: Submission, caller: Caller, idempotency_key: str | None = None
    ) -> tuple[JobRecord, bool]:
        """Check, store and queue a request on behalf of `caller`; true where an earlier one had made the job already.

        Raises:
            BodyRefused, ParameterRefused, DiskFull, QueueFull, OwnerQueueFull, KeyReused, UploadNotFound, and what
                `Images.at` raises: nothing is left behind.
            ConversationNotFound, JobNotFound, NotContinuable: the caller has no such conversation, or video to go on
                from.
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
        picture, last = await self._picture(submission, caller), await self._last_picture(submission)
        job = await self._new_job(submission, caller, picture, last, idempotency_key, fingerprint)
        clip = None if submission.extends is None else await self._kept(submission.extends, VIDEO_FILE)
        entered = await self._enter(job, caller, picture, last, clip)
        if options.conversation is not None:
            await off_loop(self.conversations.note_job, options.conversation, entered[0].id)
        return entered

    async def _own(self, job_id: str, caller: Caller) -> JobRecord:
        job = await self.ledger.get(job_id)
        if job.owner != caller.owner:
            raise JobNotFound(job_id)
        return job

    async def _kept(self, job: JobRecord, name: str) -> bytes:
        try:
            return await off_loop(self.files.read, job.id, name)
        except FileNotFoundError:
            raise NotContinuable(job.id, "it was made before such were kept, or its files are gone") from None

    async def _continued(self, submission: Submission, conversation_id: str, caller: Caller) -> Submission:
        conversation = await off_loop(self.conversations.get, conversation_id, caller.owner)
        before = None
        if conversation.job_id is not None:
            with suppress(JobNotFound):  # it was removed
                before = (await self.ledger.get(conversation.job_id)).parameters
        return continued(submission, conversation, before)

    async def _picture(self, submission: Submission, caller: Caller) -> CheckedImage | None:
        """The checked one that it begins with, `None` where it has words alone."""
        if submission.extends is not None and (video := submission.extends.video) is not None:
            return CheckedImage(
                data=await self._kept(submission.extends, LAST_FRAME_FILE), media_type="image/png", width=video.width,
                height=video.height, warnings=())
        if submission.file_id is not None:
            upload = await off_loop(self.uploads.get, submission.file_id, caller.owner)
            return await self.images.read(upload.id, upload.picture, upload.warnings)
        before = submission.remixed_from
        if before is not None and before.picture is not None:
            return await self.images.read(before.id, before.picture, ())
        sent = submission.image if submission.image_url is None else submission.image_url
        if submission.conversation is not None and sent is None:
            stored = submission.conversation.pictures
            return await self.images.read(submission.conversation.id, stored[-1], ()) if stored else None
        return None if sent is None else await self.images.at(sent)

    async def _last_picture(self, submission: Submission) -> CheckedImage | None:
        """The checked one that it ends with, if there is one."""
        before = submission.remixed_from
        if before is not None and before.last_picture is not None:
            return await self.images.read(before.id, before.last_picture, ())
        with named("last_image"):
            return None if submission.last_image is None else await self.images.at(submission.last_image)

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
            job = replace(job, picture=await self.images.store(job.id, "input", picture))
        if last is not None:
            job = replace(job, last_picture=await self.images.store(job.id, "last", last))
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


def resolve(
    options: GenerateOptions, videos: Sequence[VideoModelInfo], vls: Sequence[VLModelInfo],
    picture_size: tuple[int, int] | None, absent: Sequence[AbsentModel] = (), *, to_last_image: bool = False,
) -> EffectiveParameters:
    """Every parameter of the job; `picture_size` is (width, height) in pixels, `None` for words alone; of the models
    that are `absent` it is said why.

    `to_last_image`: there is a picture to end with too.

    Raises:
        ParameterRefused: for the first parameter that cannot be served.
    """
    model = find_model(options.model, videos, absent)
    if to_last_image and "flf2v" not in model.tasks:
        able = [other.id for other in videos if "flf2v" in other.tasks]
        instead = f"`model` {' or '.join(able)} does" if able else "no model here does"
        raise ParameterRefused(
            "task_not_supported", "last_image", f"{model.id} takes no last picture; {instead}. Or leave it out.")
    if options.extend_from is not None and not to_last_image and "i2v" not in model.tasks:
        able = " or ".join(other.id for other in videos if "i2v" in other.tasks)
        raise ParameterRefused(
            "task_not_supported", "extend_from", f"{model.id} begins with no picture, so it cannot go on from a last "
            f"frame; {f'`model` {able} can' if able else 'no model here can'}.")
    render = resolve_render(options, model, picture_size, to_last_image=to_last_image)
    profile = options.profile or model.profile
    _check_words(options, profile, vls)
    return EffectiveParameters(
        model=model.id, revision=model.revision, engine=model.engine, engine_reason=model.engine_reason or None,
        profile=profile, width=render.width, height=render.height, num_frames=render.num_frames, fps=render.fps,
        steps=render.sampling.steps, sampler=render.sampling.sampler, guidance_scale=render.sampling.guidance_scale,
        guidance_scale_2=render.sampling.guidance_scale_2, loras=options.loras, language=options.language,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
    )


def framing_warnings(
    parameters: EffectiveParameters, videos: Sequence[VideoModelInfo], picture_size: tuple[int, int] | None
) -> tuple[str, ...]:
    """What of the picture the clip will not show, and which size would show all of it."""
    if picture_size is None:
        return ()
    whole = default_size(find_model(parameters.model, videos), picture_size)
    said = cut_in_words(picture_size, (parameters.width, parameters.height), whole)
    return () if said is None else (said,)


def _check_words(options: GenerateOptions, profile: str, vls: Sequence[VLModelInfo]) -> None:
    profiles = sorted({name for vl in vls for name in vl.profiles})
    if profiles and profile not in profiles:
        if options.profile is None:
            return  # the model's own profile: which wording stands in for it is for the describing service to say
        raise ParameterRefused("unknown_profile", "profile", f"Use one of the prompt styles {', '.join(profiles)}.")
    languages = sorted({name for vl in vls for name in vl.languages})
    if languages and options.language not in languages:
        raise ParameterRefused("unknown_language", "language", f"Use one of the languages {', '.join(languages)}.")
