"""Videos and pictures are kept for so long; then the record says `expired` and the files are gone."""

import asyncio
import logging
import time
from dataclasses import dataclass

from gateway.jobs.ledger import Ledger
from gateway.storage.files import LocalFiles
from gateway.threads import off_loop

log = logging.getLogger(__name__)

_AT_ONCE = 100
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Lets go of what ended more than `keep_s` seconds ago."""

    ledger: Ledger
    files: LocalFiles
    keep_s: float

    async def run(self) -> int:
        """Expire what is due; returns how many jobs it were.

        The record goes first: whoever asks from then on is told so, instead of finding half of the files. What a crash
        leaves between the two is swept, for an expired job owns no files.
        """
        expired = 0
        while job_ids := await self.ledger.expire(time.time() - self.keep_s, _AT_ONCE):
            for job_id in job_ids:
                await off_loop(self.files.remove_job, job_id)
            expired += len(job_ids)
        return expired

    async def keep_running(self) -> None:
        """For ever: look a few times within `keep_s`, at least every minute."""
        while True:
            try:
                if expired := await self.run():
                    log.info("the files of %d jobs expired", expired)
            except Exception:
                log.exception("letting go of old files failed; it is tried again")
            await asyncio.sleep(min(_LONGEST_PAUSE_S, self.keep_s / 4))
