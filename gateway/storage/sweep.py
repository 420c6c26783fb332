"""Files that belong to no job: put aside for a day, unless it looks as though the database were the wrong one."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from gateway.storage.files import LocalFiles, Stored

log = logging.getLogger(__name__)

TRASH_KEPT_S = 86400.0
_FORGOTTEN_AFTER_S = 3600.0  # no upload lasts so long
_FEW_MADE, _FEW, _FEW_OF_ALL = 3, 10, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database knows of files: of which jobs and uploads it keeps some, and of which it let them go."""

    kept: Callable[[], set[str]]
    let_go: Callable[[Collection[str]], set[str]]
    """Of these ids, those of jobs whose files have expired."""


class Sweeper:
    """Looks after the files of one deployment. Nothing is touched that has another name than ours, that is young, or
    while another deployment keeps files at the same place."""

    def __init__(self, files: LocalFiles, deployment: str, known: Known) -> None:
        self.files = files
        self.refusal: str | None = None
        """Why the last sweep left unknown files where they are."""
        self._deployment = deployment
        self._known = known

    def run(self, *, nobody_writes: Callable[[], bool]) -> None:
        """Sweep. `nobody_writes` says, after the look, that whoever wrote what was seen is gone. Blocking."""
        self.refusal = self._sweep(nobody_writes)
        if self.refusal is not None:
            log.warning("no unknown file is touched: %s", self.refusal)
        self.files.drop_copies()

    def _sweep(self, nobody_writes: Callable[[], bool]) -> str | None:
        stored, trashed = self.files.stored(), self.files.trashed()
        if others := self.files.claim(self._deployment):
            return (
                f"the files of {', '.join(sorted(others))} lie at the same place as those of {self._deployment}, which "
                "is this one: give each its own prefix or folder, or delete the marks of those that are gone"
            )
        # Asked after the look: a younger job's files may have been there before the job was.
        older_than_s = 0.0 if not self.files.shared and nobody_writes() else _FORGOTTEN_AFTER_S
        kept = self._known.kept()
        self._bring_back(trashed.keys() & kept)
        lost = {job_id: found for job_id, found in stored.items() if job_id not in kept and found.age_s >= older_than_s}
        for job_id in self._known.let_go(lost.keys()):
            self.files.remove_job(job_id)
            del lost[job_id]
        unknown_trash = {job_id: found for job_id, found in trashed.items() if job_id not in kept}
        if _too_many(lost | unknown_trash, len(stored.keys() & kept), len(lost)):
            return (
                f"the database does not know {len(lost)} of {len(stored)} folders, {_made(lost)} of them with videos "
                "or uploads: is it an older one, or another's? Bring the right one back, or move those folders away"
            )
        self.files.drop_parts(older_than_s)
        self._put_aside(lost)
        for job_id, found in unknown_trash.items():
            if found.age_s > TRASH_KEPT_S:
                self.files.empty_trash(job_id)
        return None

    def _put_aside(self, lost: Collection[str]) -> None:
        for job_id in lost:
            self.files.trash(job_id)
        if lost:
            log.warning(
                "%d folders of no known job are in the trash for %g hours: %s", len(lost), TRASH_KEPT_S / 3600,
                ", ".join(sorted(lost)),
            )

    def _bring_back(self, job_ids: Collection[str]) -> None:
        for job_id in job_ids:
            self.files.bring_back(job_id)
        if job_ids:
            log.warning("the files of %d jobs, known again, are back from the trash", len(job_ids))


def _made(found: Mapping[str, Stored]) -> int:
    return sum(stored.made for stored in found.values())


def _too_many(unknown: Mapping[str, Stored], num_kept: int, num_lost: int) -> bool:
    """Whether so much is unknown, what lies in the trash already counted, that the database must be the wrong one.

    Pictures of requests that were killed at the door are many at worst and can be sent again; a video or an upload of
    no job can only come of a crash within a removal.
    """
    if not num_lost:
        return False
    if _made(unknown) > _FEW_MADE or (_made(unknown) and not num_kept):
        return True
    return len(unknown) > max(_FEW, _FEW_OF_ALL * (num_kept + num_lost))
