"""Everything one gateway process works with, opened and closed together."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
from anyio.to_thread import run_sync as off_loop

from gateway.auth.addresses import outside_client, outside_tls
from gateway.auth.callers import Door, Waits
from gateway.auth.keys import KeyStore
from gateway.auth.links import Links
from gateway.auth.signing import Signer, open_signer
from gateway.database.database import Database
from gateway.jobs.deliveries import DeliveryStore
from gateway.jobs.ledger import Ledger
from gateway.jobs.progress import Eta, LiveProgress
from gateway.jobs.queue import JobQueue
from gateway.jobs.store import JobStore
from gateway.run.cancel import Cancellation
from gateway.run.engine import DbosEngine, Dispatcher, jobs_at_once
from gateway.run.executors import Executors, FileIdentity, SessionIdentity
from gateway.run.expiry import Expiry
from gateway.run.metrics import GatewayMetrics
from gateway.run.pipeline import Parts, run_job
from gateway.run.recovery import Recovery, recovering
from gateway.run.settle import Settling
from gateway.run.webhooks import Patience, WebhookSender
from gateway.services.catalog import Catalog
from gateway.services.clients import connect
from gateway.services.discovery import DiscoveredPool, ask_directory
from gateway.services.render_places import RenderPlaces
from gateway.services.video import Renderers, VideoClient
from gateway.services.vl import Describers, PromptCache, Prompter, VLClient
from gateway.settings import GatewaySettings
from gateway.storage.bucket import open_bucket
from gateway.storage.deployment import deployment_of, open_database
from gateway.storage.files import LocalFiles
from gateway.storage.provenance.certificate import open_certificate
from gateway.storage.provenance.marking import Marker
from gateway.storage.room import Reserve, Room
from gateway.storage.sweep import Known, Sweeper
from gateway.submit.accept import Submitter
from gateway.submit.conversations import Bounds, ConversationStore
from gateway.submit.dialogue import Dialogues
from gateway.submit.images.check import ImageLimits
from gateway.submit.images.fetch import Fetching
from gateway.submit.images.images import Decoders, Images
from gateway.submit.intake import Intake
from gateway.submit.uploaded import UploadStore

_INTAKE_BYTES = 64 * 2**20  # of requests that arrived and whose pictures are being checked
_INTAKE_PATIENCE_S = 30.0
_PAUSE_POLLS = 2  # a job that was released is left alone for so many looks at the queue, and longer each time


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The open parts of the process."""

    settings: GatewaySettings
    metrics: GatewayMetrics
    database: Database
    door: Door
    waits: Waits
    ledger: Ledger
    files: LocalFiles
    vl: Describers
    video: Renderers
    catalog: Catalog
    engine: DbosEngine
    submitter: Submitter
    room: Room
    intake: Intake
    images: Images
    uploads: UploadStore
    dialogues: Dialogues
    cancellation: Cancellation
    care: Recovery
    webhooks: WebhookSender


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, metrics: GatewayMetrics) -> AsyncIterator[Gateway]:
    """Open the databases and connections, take up unfinished jobs, and close everything again.

    Raises:
        gateway.run.executors.StateInUse: another gateway works as this executor.
    """
    database = await off_loop(open_database, settings)
    store = JobStore(database)
    gateway = _assemble(settings, metrics, database, store)
    try:
        async with recovering(gateway.care):
            watches = [
                asyncio.create_task(gateway.catalog.keep_looking(settings.probe_s)),
                asyncio.create_task(gateway.webhooks.keep_dispatching(gateway.engine.deliver)),
                asyncio.create_task(Expiry(
                    ledger=gateway.ledger, files=gateway.files, keep_files_s=settings.keep_files_s,
                    keep_jobs_s=settings.keep_jobs_s,
                ).keep_running()),
                asyncio.create_task(gateway.dialogues.keep_expiring()),
            ]
            try:
                yield gateway
            finally:
                for watch in watches:
                    watch.cancel()
                await asyncio.wait(watches)
    finally:
        await gateway.vl.pool.aclose()
        await gateway.video.pool.aclose()
        await gateway.webhooks.http.aclose()
        await gateway.images.decoders.aclose()
        await off_loop(database.close)


def _assemble(
    settings: GatewaySettings, metrics: GatewayMetrics, database: Database, store: JobStore
) -> Gateway:
    vl, video = _services(settings, database)
    catalog = Catalog(vl, video)
    concurrency = partial(jobs_at_once, settings.concurrency_given, video.pool)
    files, tls = _files(settings), outside_tls(settings.ca_file)
    given = settings.secret.get_secret_value() if settings.secret else None
    signer = open_signer(given, settings.state_dir)
    ledger = _ledger(settings, metrics, database, store, catalog, video, signer)
    webhooks = _webhooks(settings, metrics, database, ledger, signer, tls)
    settling = Settling(
        ledger=ledger, video=video, pause_s=_PAUSE_POLLS * settings.engine_poll_s, deadline_s=settings.job_deadline_s
    )
    parts = Parts(
        ledger=ledger, files=files, video=video, settling=settling, render_timeout_s=settings.render_timeout_s,
        marker=_marker(settings), policy=settings.policy,
        prompts=Prompter(vl, PromptCache(database), catalog.known_vl_models, metrics.prompt_looked_up),
    )
    engine = DbosEngine(
        settings.engine_database_url, partial(run_job, parts), webhooks.attempt,
        ledger.live.turn_due.set, executor_id=settings.executor_id, concurrency=concurrency(),
        poll_s=settings.engine_poll_s, max_recoveries=settings.max_recoveries,
    )
    images, uploads = _images(settings, files, tls), UploadStore(database)
    dialogues = Dialogues(files=files, images=images, describers=vl, store=ConversationStore(database, Bounds(
        keep_s=settings.keep_conversations_s, max_of_owner=settings.max_conversations,
        max_bytes_of_owner=settings.max_conversation_bytes)))
    reserve = Reserve(settings.state_dir / "reserve", settings.reserve_bytes)
    reserve.fill()
    room = Room(settings.data_dir, settings.min_free_bytes, reserve)
    queue = JobQueue(database)
    care = Recovery(
        engine=engine, queue=queue, dispatcher=Dispatcher(
            queue=queue, live=ledger.live, engine=engine, executor_id=settings.executor_id,
            look_again_s=settings.engine_poll_s, claimable=catalog.claimable,
            concurrency=concurrency,
        ), executors=_executors(settings, database), ledger=ledger, unfinished=store.unfinished,
        dead_after_s=settings.dead_after_s, settling=settling,
        sweeper=Sweeper(files, deployment_of(database), Known(
            kept=lambda: store.ids() | uploads.ids() | dialogues.store.ids(), let_go=store.let_go,
        )),
    )
    return Gateway(
        settings=settings, metrics=metrics, database=database,
        door=Door(KeyStore(database), keys_required=settings.keys_required),
        waits=Waits(per_caller=settings.max_waits, in_all=settings.max_connections * 3 // 4),
        ledger=ledger, files=files, vl=vl, video=video, catalog=catalog, engine=engine, room=room, images=images,
        uploads=uploads, dialogues=dialogues, care=care, webhooks=webhooks,
        intake=Intake(
            settings.state_dir / "incoming", room, max_image_bytes=settings.max_image_bytes,
            disk_bytes=settings.max_incoming_bytes, memory_bytes=_INTAKE_BYTES, patience_s=_INTAKE_PATIENCE_S,
        ),
        submitter=Submitter(
            settings=settings, ledger=ledger, files=files, room=room, images=images, uploads=uploads, catalog=catalog,
            conversations=dialogues.store,
        ),
        cancellation=Cancellation(ledger=ledger, files=files, engine=engine, video=video, reserve=reserve),
    )


def _marker(settings: GatewaySettings) -> Marker | None:
    if not settings.provenance:
        return None
    certificate = open_certificate(settings.c2pa_cert, settings.c2pa_key, settings.state_dir)
    return Marker(certificate, producer=settings.producer, with_prompt=settings.c2pa_prompt)


def _services(settings: GatewaySettings, database: Database) -> tuple[Describers, Renderers]:
    token = settings.internal_token.get_secret_value() if settings.internal_token else None
    join = partial(connect, token=token, connect_timeout_s=settings.connect_timeout_s)

    def join_vl(url: str, **given: Any) -> VLClient:
        return VLClient(join(url, **given), describe_timeout_s=settings.describe_timeout_s)

    def join_video(url: str, **given: Any) -> VideoClient:
        return VideoClient(join(url, **given))

    found = {"forget_s": settings.abandon_after_s, "directory": partial(ask_directory, token=token)}
    vl = Describers(DiscoveredPool(settings.vl_urls, join_vl, **found))
    places = RenderPlaces(database)
    video_pool = DiscoveredPool(settings.video_urls, join_video, **found)
    return vl, Renderers(video_pool, places, abandon_after_s=settings.abandon_after_s)


def _ledger(
    settings: GatewaySettings, metrics: GatewayMetrics, database: Database, store: JobStore,
    catalog: Catalog, video: Renderers, signer: Signer,
) -> Ledger:
    live = LiveProgress()
    eta = Eta(database, live, servers=video.pool.num_healthy)
    eta.learn_from_the_past()
    links = None if settings.link_s is None else Links(key=signer.links_key(), valid_s=settings.link_s)
    return Ledger(store, live, eta, metrics.job_ended, links, catalog.absent)


def _images(settings: GatewaySettings, files: LocalFiles, tls: ssl.SSLContext) -> Images:
    return Images(
        files=files,
        fetching=Fetching(
            rules=settings.image_url_rules, max_bytes=settings.max_image_bytes,
            timeout_s=settings.image_fetch_timeout_s, tls=tls,
        ),
        decoders=Decoders(ImageLimits(
            max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels,
            stored_long_side=settings.stored_long_side,
        )),
    )


def _files(settings: GatewaySettings) -> LocalFiles:
    root = settings.state_dir / "files"
    if settings.artifacts_url is None:
        return LocalFiles(root)
    return open_bucket(
        settings.artifacts_url, root, endpoint=settings.s3_endpoint, region=settings.s3_region,
        key_id=settings.s3_key_id, secret=settings.s3_secret.get_secret_value() if settings.s3_secret else None,
    )


def _webhooks(
    settings: GatewaySettings, metrics: GatewayMetrics, database: Database, ledger: Ledger, signer: Signer,
    tls: ssl.SSLContext,
) -> WebhookSender:
    patience = Patience()
    return WebhookSender(
        ledger=ledger, deliveries=DeliveryStore(database), signer=signer,
        http=outside_client(timeout=httpx.Timeout(patience.answer_s), tls=tls), rules=settings.webhook_rules,
        patience=patience, public_url=settings.public_url, tried=metrics.webhook_tried,
    )


def _executors(settings: GatewaySettings, database: Database) -> Executors:
    if database.shared:
        identity, place = SessionIdentity(database, settings.executor_id), "the database of GATEWAY_DATABASE_URL"
    else:
        identity = FileIdentity(settings.state_dir / f"{settings.executor_id}.lock")
        place = str(settings.state_dir)
    return Executors(database, identity, settings.executor_id, place=place, dead_after_s=settings.dead_after_s)
