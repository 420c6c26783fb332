"""Jobs leave the line: whoever has a free slot takes the next ones that have all they need, and starts them."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.jobs.progress import LiveProgress
from gateway.jobs.queue import Claimable, JobQueue
from gateway.run.engine import DbosEngine
from gateway.threads import off_loop

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Takes jobs for this executor's engine: at once when one comes or ends here, and every `look_again_s`, for other
    processes on the same database tell nobody here."""

    queue: JobQueue
    live: LiveProgress
    engine: DbosEngine
    executor_id: str
    look_again_s: float
    claimable: Callable[[], Claimable]
    _seen: list[Claimable] = field(default_factory=list, init=False)

    async def keep_dispatching(self) -> None:
        """Dispatch until canceled."""
        while True:
            self.live.turn_due.clear()
            try:
                await self._dispatch()
            except Exception:
                log.exception("no job could be started; it is tried again in %g s", self.look_again_s)
            try:
                async with asyncio.timeout(self.look_again_s):
                    await self.live.turn_due.wait()
            except TimeoutError:
                continue

    async def _dispatch(self) -> None:
        claimable = self.claimable()
        if self._seen != [claimable]:
            self._seen[:] = [claimable]
            self.live.queue_moved()  # waiting jobs say what they wait for
        if self.engine.num_free == 0:
            return
        for claim in await off_loop(self.queue.take, self.executor_id, self.engine.num_free, claimable):
            try:
                await self.engine.start(claim)
            except Exception:
                log.exception("job %s was not started; it waits again", claim.job_id, extra={"job_id": claim.job_id})
                await off_loop(self.queue.hand_back, claim.job_id)
