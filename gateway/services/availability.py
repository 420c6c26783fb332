"""What jobs need of the two model services, and whether it is there: none is claimed that would only wait."""

from dataclasses import dataclass

from gateway.jobs.job import Absence, JobRecord
from gateway.jobs.queue import Claimable
from gateway.services.video import Renderers
from gateway.services.vl import Describers


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What is known of every address now; asks nobody."""

    vl: Describers
    video: Renderers

    def claimable(self) -> Claimable:
        """Which jobs have all that they need."""
        return Claimable(
            renders=self.video.pool.absence() is None, describes=self.vl.pool.absence() is None,
            absent_models=self.video.pool.absent_models(),
        )

    def absent(self, job: JobRecord) -> Absence | None:
        """What a waiting job needs and no address offers."""
        found = self.vl.pool.absence() if job.needs_vl else None
        if found is not None:
            return Absence(what="vl_service", detail=f"vl_service: {found[0]}", away_s=found[1])
        found = self.video.pool.absence(job.parameters.model)
        if found is not None:
            return Absence(what="video_service", detail=f"video_service: {found[0]}", away_s=found[1])
        return None
