"""Videos and pictures are kept for so long, and then the record says `expired`; records, too, are kept for so long."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from anyio.to_thread import run_sync as off_loop

from gateway.jobs.ledger import Ledger
from gateway.storage.files import LocalFiles

log = logging.getLogger(__name__)

_AT_ONCE = 100
_LONGEST_PAUSE_S = 60.0
KEEP_WITHOUT_VIDEO_S = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Lets go of the files of what ended more than `keep_files_s` seconds ago, and of all of what ended more than
    `keep_jobs_s` ago. `None`: of no video, and of jobs that have none after `KEEP_WITHOUT_VIDEO_S`."""

    ledger: Ledger
    files: LocalFiles
    keep_files_s: float | None
    keep_jobs_s: float | None

    async def run(self) -> int:
        """Do what is due; returns of how many jobs something went."""
        now, keep_jobs_s = time.time(), self.keep_jobs_s or KEEP_WITHOUT_VIDEO_S
        went = await self._expire(now - min(self.keep_files_s or keep_jobs_s, keep_jobs_s), completed=False)
        if (keep_videos_s := self._keep_videos_s) is not None:
            went += await self._expire(now - keep_videos_s, completed=True)
        return went + await self._forget(now - keep_jobs_s)

    async def keep_running(self) -> None:
        """For ever: look a few times within the shortest time for which something is kept, at least every minute."""
        shortest_s = min(self._keep_videos_s or KEEP_WITHOUT_VIDEO_S, KEEP_WITHOUT_VIDEO_S)
        while True:
            try:
                if went := await self.run():
                    log.info("files or records of %d jobs were let go of", went)
            except Exception:
                log.exception("letting go of old files and records failed; it is tried again")
            await asyncio.sleep(min(_LONGEST_PAUSE_S, shortest_s / 4))

    @property
    def _keep_videos_s(self) -> float | None:
        return min((kept for kept in (self.keep_files_s, self.keep_jobs_s) if kept is not None), default=None)

    async def _expire(self, finished_before: float, *, completed: bool) -> int:
        """The record goes first: whoever asks from then on is told so, instead of finding half of the files. What a
        crash leaves between the two is swept, for an expired job owns no files."""
        expired = 0
        while job_ids := await self.ledger.expire(finished_before, _AT_ONCE, completed=completed):
            await self._remove_files(job_ids)
            expired += len(job_ids)
        return expired

    async def _forget(self, finished_before: float) -> int:
        forgotten = 0
        while job_ids := await self.ledger.outdated(finished_before, _AT_ONCE):
            await self._remove_files(job_ids)  # again: a crash may have left some, which nobody would know any more
            await self.ledger.remove(*job_ids)
            forgotten += len(job_ids)
        return forgotten

    async def _remove_files(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            await off_loop(self.files.remove_job, job_id)
