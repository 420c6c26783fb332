"""Which video service renders a job: chosen once, written down before it hears of the job, kept to while it lives."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

import httpx
from anyio.to_thread import run_sync as off_loop
from httpx_sse import SSEError
from pydantic import ValidationError

from contracts.models import AbsentModel, VideoModelInfo, VideoModelList
from contracts.videos import TERMINAL_RENDER_STATES, RenderFile, RenderStatus, VideoRequest
from gateway.services.clients import SHORT_TIMEOUT_S, ServiceClient
from gateway.services.errors import ServiceError
from gateway.services.pool import Member, Pool
from gateway.services.render_places import RenderPlaces

log = logging.getLogger(__name__)

_READ_SILENCE_S = 45.0  # the services send a heartbeat more often than this
_LOOK_AGAIN_S = 0.3  # after a stream that ended before its render
_FORGET_AFTER_S = 7 * 86400.0
_FORGET_GONE_AFTER_S = 3600.0  # where another process has the address by now, if any


class VideoClient(ServiceClient):
    """The video service at one address."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__("video_service", http)

    async def models(self) -> list[VideoModelInfo | AbsentModel]:
        """What it runs, its default first, and what it lacks; one attempt."""
        models = await self._send("GET", "/v1/models", VideoModelList, timeout_s=SHORT_TIMEOUT_S)
        return [*models.data, *models.absent]

    async def put(self, render_id: str, request: VideoRequest) -> RenderStatus:
        """Start the render of this id, attach to it, or find it finished; one attempt."""
        return await self._send("PUT", f"/v1/videos/{render_id}", RenderStatus, timeout_s=60.0, asked=request)

    async def status(self, render_id: str) -> RenderStatus:
        """Where the render stands; one attempt."""
        return await self._send("GET", f"/v1/videos/{render_id}", RenderStatus, timeout_s=SHORT_TIMEOUT_S)

    async def watch(self, render_id: str) -> AsyncGenerator[RenderStatus]:
        """Every status until the terminal one, over streams that break off while the service answers.

        Raises:
            ServiceError: `unavailable` where it does not, `not_found` when it no longer knows the render.
        """
        while True:
            try:
                async with self._events("GET", f"/v1/videos/{render_id}/events", read_s=_READ_SILENCE_S) as events:
                    async for event in events.aiter_sse():
                        status = _status_in(event.data)
                        if status is not None:
                            yield status
                            if status.state in TERMINAL_RENDER_STATES:
                                return
            except (SSEError, ServiceError):
                pass  # whatever broke the stream, the status below tells whether the service still answers
            status = await self.status(render_id)
            yield status
            if status.state in TERMINAL_RENDER_STATES:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def content(self, render_id: str, variant: RenderFile = "video") -> AsyncGenerator[bytes]:
        """The MP4 of a completed render, or a JPEG with it, in pieces. One attempt: the caller starts its file anew."""
        path = f"/v1/videos/{render_id}/content"
        async with self._streamed("GET", path, read_s=_READ_SILENCE_S, params={"variant": variant}) as response:
            async for chunk in response.aiter_bytes():
                yield chunk

    async def delete(self, render_id: str) -> bool:
        """Stop a queued or running render, or remove an ended one; true once nothing of it is there. One attempt."""
        try:
            async with asyncio.timeout(SHORT_TIMEOUT_S):
                response = await self._http.delete(f"/v1/videos/{render_id}", timeout=SHORT_TIMEOUT_S)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if response.status_code != httpx.codes.NOT_FOUND:
            self._check(response)
        return response.status_code in (httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND)


def _status_in(data: str) -> RenderStatus | None:
    try:
        return RenderStatus.model_validate_json(data, extra="ignore")
    except ValidationError:
        return None


Place = Member[VideoClient]


class Renderers:
    """Every video service of this deployment as one."""

    def __init__(
        self, pool: Pool[VideoClient], places: RenderPlaces, *, abandon_after_s: float
    ) -> None:
        self.pool = pool
        self._places = places
        self._abandon_after_s = abandon_after_s
        self._choosing = asyncio.Lock()

    async def put(self, job_id: str, request: VideoRequest) -> Place:
        """Have one service take the render, or attach to the one that did; returns it. Each is asked once at most.

        A service that may have begun the render is left only when it was silent for `abandon_after_s`, and only for
        another one that is healthy.

        Raises:
            ServiceError: of the last one that was asked.
        """
        place, fresh = await self._place(job_id, request)
        tried = {place.address}
        while True:
            try:
                await place.client.put(job_id, request)
            except ServiceError as error:
                following = self._next(request.model, tried) if self._may_leave(place, error, fresh) else None
                if following is None:
                    raise
                await self._settle(job_id, following)
                place, fresh = following, True
                tried.add(place.address)
            else:
                place.answered()
                return place

    async def leave(self, job_id: str, model: str) -> None:
        """The render failed where it was: the next one is made elsewhere, if there is a healthy service."""
        place = await self.current(job_id)
        if place is not None and (following := self._next(model, {place.address})) is not None:
            await self._settle(job_id, following)

    async def load(self) -> dict[str, int]:
        """Renders of unfinished jobs by address."""
        return await off_loop(self._places.load)

    async def current(self, job_id: str) -> Place | None:
        """Where the job's render is, `None` where it was never put or the settings no longer name the address."""
        address = await off_loop(self._places.current, job_id)
        return None if address is None else self.pool.at(address) or self.pool.recall(address)

    async def stop(self, job_id: str) -> None:
        """Stop or remove the render wherever it may be; what does not answer is told later, by `clear_left`."""
        for address in await off_loop(self._places.all_of, job_id):
            await self._tell(job_id, address)

    async def clear_left(self) -> int:
        """Tell the services to drop the renders that nobody waits for any more; returns how many are gone.

        A service that never comes back is kept in mind for a week, an address that came and went for an hour.
        """
        cleared = 0
        for left in await off_loop(self._places.left):
            place = self.pool.at(left.address)
            if place is not None and place.silent_since is None:
                cleared += await self._tell(left.job_id, left.address)
            elif time.time() - left.chosen_at > self._forget_after_s(left.address):
                await off_loop(self._places.forget, left.job_id, left.address)
        return cleared

    def _forget_after_s(self, address: str) -> float:
        return _FORGET_GONE_AFTER_S if self.pool.comes_and_goes(address) else _FORGET_AFTER_S

    async def _tell(self, job_id: str, address: str) -> bool:
        place = self.pool.at(address)
        if place is None:
            return False
        try:
            gone = await place.client.delete(job_id)
        except ServiceError as error:
            log.warning("the render of %s was not removed yet: %s", job_id, error, extra={"job_id": job_id})
            return False
        if gone:
            await off_loop(self._places.forget, job_id, address)
        return gone

    async def _place(self, job_id: str, request: VideoRequest) -> tuple[Place, bool]:
        """Where the render goes, and whether that was decided only now."""
        place = await self.current(job_id)
        if place is not None and (not place.leaving or await self._has(place, job_id)):
            return place, False
        async with self._choosing:  # the next job counts this one
            load = await off_loop(self._places.load) if len(self.pool.members) > 1 else {}

            def cost(member: Place) -> float:  # of equal ones, who need not load the model first
                return load.get(member.address, 0) + 0.5 * (request.model not in member.loaded)

            chosen = self.pool.ranked(model=request.model, load=cost)[0]
            await self._settle(job_id, chosen)
        return chosen, True

    async def _has(self, place: Place, job_id: str) -> bool:
        try:
            return (await place.client.status(job_id)).state not in ("failed", "canceled")
        except ServiceError:  # it is gone, and so may its address be, to a service that knows nothing of the render
            return False

    async def _settle(self, job_id: str, place: Place) -> None:
        await off_loop(self._places.choose, job_id, place.address)
        log.info("job %s renders at %s", job_id, place.address, extra={"job_id": job_id, "upstream": place.address})

    def _may_leave(self, place: Place, error: ServiceError, fresh: bool) -> bool:
        """Whether the render is surely not with `place`: it said no, never heard of it, or is taken to be gone."""
        if error.kind == "busy":
            place.full(error.said, error.wait_s)
            return True  # it answers that it did not take the render
        if error.kind not in ("unavailable", "misconfigured"):
            return False
        place.failed(error.said, silent=error.heard != "answered")
        if error.heard == "answered" or place.leaving or (fresh and error.heard == "never"):
            return True  # also of one that is silent and whose name does not lead to it any more
        return place.silent_for_s() >= self._abandon_after_s

    def _next(self, model: str | None, tried: set[str]) -> Place | None:
        others = self.pool.ranked(model=model)
        return next((member for member in others if member.takes_work and member.address not in tried), None)
