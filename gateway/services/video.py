"""Which video service renders a job: chosen once, written down before it hears of the job, kept to while it lives."""

import asyncio
import logging
import time

from anyio.to_thread import run_sync as off_loop

from contracts.models import Health
from contracts.videos import VideoRequest
from gateway.services.clients import VideoClient
from gateway.services.errors import ServiceError
from gateway.services.pool import Member, Pool
from gateway.services.render_places import RenderPlaces

log = logging.getLogger(__name__)

Place = Member[VideoClient]
_FORGET_AFTER_S = 7 * 86400.0


class Renderers:
    """Every video service of this deployment as one."""

    def __init__(
        self, pool: Pool[VideoClient], places: RenderPlaces, *, abandon_after_s: float
    ) -> None:
        self.pool = pool
        self._places = places
        self._abandon_after_s = abandon_after_s
        self._choosing = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.pool.aclose()

    async def health(self) -> Health:
        """Ready when one address is."""
        return await self.pool.health()

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
        return None if address is None else self.pool.at(address)

    async def stop(self, job_id: str) -> None:
        """Stop or remove the render wherever it may be; what does not answer is told later, by `clear_left`."""
        for address in await off_loop(self._places.all_of, job_id):
            await self._tell(job_id, address)

    async def clear_left(self) -> int:
        """Tell the services to drop the renders that nobody waits for any more; returns how many are gone.

        A service that never comes back is kept in mind for a week.
        """
        cleared = 0
        for left in await off_loop(self._places.left):
            place = self.pool.at(left.address)
            if place is not None and place.silent_since is None:
                cleared += await self._tell(left.job_id, left.address)
            elif time.time() - left.chosen_at > _FORGET_AFTER_S:
                await off_loop(self._places.forget, left.job_id, left.address)
        return cleared

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
        if place := await self.current(job_id):
            return place, False
        async with self._choosing:  # the next job counts this one
            load = await off_loop(self._places.load) if len(self.pool.members) > 1 else {}

            def cost(member: Place) -> float:  # of equal ones, who need not load the model first
                return load.get(member.address, 0) + 0.5 * (request.model not in member.loaded)

            chosen = self.pool.ranked(model=request.model, load=cost)[0]
            await self._settle(job_id, chosen)
        return chosen, True

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
        if error.heard == "answered" or (fresh and error.heard == "never"):
            return True
        return place.silent_for_s() >= self._abandon_after_s

    def _next(self, model: str | None, tried: set[str]) -> Place | None:
        others = self.pool.ranked(model=model)
        return next((member for member in others if member.takes_work and member.address not in tried), None)
