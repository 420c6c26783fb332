"""Telling a job's end to the address its owner named, signed as Standard Webhooks has it."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import httpx
from anyio.to_thread import run_sync as off_loop
from standardwebhooks import Webhook

from contracts.jobs import Job, JobState
from gateway.auth.addresses import AddressRefused, AddressRules, call_in_turn, pin, read_url
from gateway.auth.signing import Signer
from gateway.jobs.deliveries import MAX_ERROR_CHARS, Attempt, Delivery, DeliveryState, DeliveryStore
from gateway.jobs.job import JobNotFound, JobRecord
from gateway.jobs.ledger import Ledger, linked, present

log = logging.getLogger(__name__)

GONE: Final = 410
_LOOK_AGAIN_S: Final = 10.0
_GATHER_S: Final = 0.05  # jobs that end together are looked for together


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a receiver has to answer, how long it is tried, and how the waits between attempts grow, in seconds.

    Waits: 5 s, 20 s, 80 s … up to 4 h, each 25 % shorter or longer by chance, so that receivers that come back are not
    called by everything at once.
    """

    answer_s: float = 15.0
    give_up_after_s: float = 24 * 3600.0
    first_wait_s: float = 5.0
    growth: float = 4.0
    longest_wait_s: float = 4 * 3600.0

    def wait_s(self, attempt: int) -> float:
        """How long to wait after this attempt (the first is 1)."""
        exponent = min(attempt - 1, 30)  # beyond it, the power overflows and the cap holds anyway
        return min(self.first_wait_s * self.growth**exponent, self.longest_wait_s) * random.uniform(0.75, 1.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the receiver said: its status and how long it wants to be left alone, or why it said nothing."""

    status: int | None
    error: str | None
    retry_after_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSender:
    """Delivers webhooks; each attempt is called by the durable engine and says when it wants the next one."""

    ledger: Ledger
    deliveries: DeliveryStore
    signer: Signer
    http: httpx.AsyncClient
    rules: AddressRules
    patience: Patience
    public_url: str | None
    tried: Callable[[DeliveryState], None]
    """Told what came of each attempt."""

    async def attempt(self, job_id: str, number: int) -> float | None:
        """Make attempt `number` (from 1) and note it; returns seconds until the next one, `None` when it is over."""
        delivery = await off_loop(self.deliveries.get, job_id)
        if delivery is None or delivery.state not in ("waiting", "sending"):
            return None
        try:
            job = await self.ledger.get(job_id)
        except JobNotFound:
            return None
        began, clock = time.time(), time.monotonic()
        receipt = await self._call(job, delivery)
        state, wait_s = self._judge(job, number, receipt)
        attempt = Attempt(
            at=began, seconds=round(time.monotonic() - clock, 3), status=receipt.status,
            error=receipt.error and receipt.error[:MAX_ERROR_CHARS],
        )
        next_try_at = None if wait_s is None else time.time() + wait_s
        await off_loop(self.deliveries.note, job_id, number, attempt, state, next_try_at)
        self.ledger.live.changed(job_id)
        self.tried(state)
        log.log(
            logging.INFO if state == "delivered" else logging.WARNING, "webhook of %s: %s (attempt %d: %s)", job_id,
            state, number, receipt.status or receipt.error, extra={"job_id": job_id},
        )
        return wait_s

    async def keep_dispatching(self, submit: Callable[[str], Awaitable[None]]) -> None:
        """For ever: dispatch when a job ends here, and every now and then for those that ended elsewhere."""
        while True:
            self.ledger.live.webhook_due.clear()
            try:
                await self.dispatch(submit)
            except Exception:
                log.exception("looking for webhooks to send failed; it is tried again in %g s", _LOOK_AGAIN_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self.ledger.live.webhook_due.wait()
            await asyncio.sleep(_GATHER_S)

    async def dispatch(self, submit: Callable[[str], Awaitable[None]]) -> None:
        """Hand the webhooks of jobs that have ended to the engine; doing so twice changes nothing."""
        while due := await off_loop(self.deliveries.due):
            for job_id in due:
                await submit(job_id)
            await off_loop(self.deliveries.begin, due)

    async def _call(self, job: JobRecord, delivery: Delivery) -> Receipt:
        body = message(linked(present(job, None, None), self.ledger.links), self.public_url)
        headers = signed_headers(job, body, self.signer.webhook_secret(job.owner))
        try:
            async with asyncio.timeout(self.patience.answer_s):
                # Pinned anew each time: a name may move, but never to where it must not point.
                pinned = await pin(read_url(delivery.url, self.rules), self.rules)
                response = await call_in_turn(pinned, lambda place: self.http.send(
                    place.request(self.http, "POST", headers=headers, content=body), stream=True
                ))
                await response.aclose()  # what else it says is of no interest, and may have no end
        except TimeoutError:
            return Receipt(status=None, error=f"no answer within {self.patience.answer_s:g} s", retry_after_s=None)
        except (AddressRefused, httpx.HTTPError) as error:
            return Receipt(status=None, error=f"{type(error).__name__}: {error}", retry_after_s=None)
        pause = response.headers.get("retry-after", "")
        return Receipt(
            status=response.status_code, error=None, retry_after_s=float(pause) if pause.isdecimal() else None
        )

    def _judge(self, job: JobRecord, number: int, receipt: Receipt) -> tuple[DeliveryState, float | None]:
        if receipt.status is not None and 200 <= receipt.status < 300:
            return "delivered", None
        if receipt.status == GONE:
            return "refused", None
        asked = min(receipt.retry_after_s or 0.0, self.patience.longest_wait_s)
        wait_s = max(self.patience.wait_s(number), asked)
        deadline = (job.finished_at or time.time()) + self.patience.give_up_after_s
        return ("given_up", None) if time.time() + wait_s > deadline else ("sending", wait_s)


async def check_address(url: str, rules: AddressRules) -> None:
    """At the door: raise `AddressRefused` where a webhook could never be delivered to."""
    await pin(read_url(url, rules), rules)


def message(job: Job, public_url: str | None) -> bytes:
    """The body: `type`, `timestamp` (of the job's end) and the job as `data`; its URLs are whole with `public_url`."""
    data = job.model_dump(mode="json", exclude_none=True)
    if public_url is not None:
        data["urls"] = {name: f"{public_url}{url}" if url[0] == "/" else url for name, url in data["urls"].items()}
    ended = job.finished_at or job.created_at
    return json.dumps(
        {"type": f"job.{_ended_as(job.state)}", "timestamp": ended.isoformat(), "data": data}, ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def signed_headers(job: JobRecord, body: bytes, secret: str) -> dict[str, str]:
    """The headers of one attempt; all attempts have the same `webhook-id`, by which a receiver knows repetitions."""
    now = datetime.now(UTC)
    message_id = f"msg_{job.id}_{_ended_as(job.state)}"
    return {
        "Content-Type": "application/json", "User-Agent": "Stillmotion-Webhooks/1", "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body.decode()),
    }


def _ended_as(state: JobState) -> JobState:
    return "completed" if state == "expired" else state
