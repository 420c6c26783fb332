"""The jobs as they are kept: every change of one is a transaction, guarded by the table of transitions."""

import time
from collections.abc import Collection
from dataclasses import asdict
from typing import Any, Unpack

import sqlalchemy as sa

from contracts.jobs import Awaited, JobState
from gateway.auth.keys import LOCAL_OWNER
from gateway.database.database import Database, page_of
from gateway.jobs.deliveries import Delivery, drop, expect, find, on_its_way
from gateway.jobs.job import (
    UNFINISHED,
    ClaimLost,
    Ending,
    IllegalTransition,
    JobNotFound,
    JobRecord,
    KeyReused,
    Known,
    NewJob,
    OwnerQueueFull,
    QueueFull,
    sources_of,
)
from gateway.jobs.queue import join, let_go, moved
from gateway.jobs.table import jobs, new_row, record_of

MAX_SEQUENCE = 2**31 - 1  # of an integer in Postgres
_QUEUE_LOCK = 2
_ASKED_AT_ONCE = 500
# Built once: most of a statement's cost is its making.
_ADD = jobs.insert().returning(jobs)
_ONE = sa.select(jobs).where(jobs.c.id == sa.bindparam("of_job"))
_ONE_TO_CHANGE = _ONE.with_for_update()
_CHANGE = jobs.update().where(jobs.c.id == sa.bindparam("of_job")).returning(jobs)
_EXPIRE = jobs.update().values(
    state=sa.case((jobs.c.state == "completed", "expired"), else_=jobs.c.state), expired_at=sa.bindparam("now")
)
_COUNT_QUEUED = sa.select(sa.func.count()).where(jobs.c.state == "queued")


class JobStore:
    """The jobs. Methods block for a millisecond or so: call them off the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job: NewJob, max_queued: int, max_of_owner: int | None = None) -> JobRecord:
        """Store `job` as queued, or return the job that the same request under the same idempotency key made before.

        Raises:
            KeyReused: the idempotency key belongs to another request; nothing was stored.
            QueueFull: `max_queued` jobs wait already; nothing was stored.
            OwnerQueueFull: `max_of_owner` jobs of this owner wait or run already; nothing was stored.
        """
        def write(connection: sa.Connection) -> JobRecord:
            self._database.one_at_a_time(connection, _QUEUE_LOCK)  # the bound holds; numbers appear in their order
            if job.idempotency_key is not None:
                before = _made_before(connection, job.owner, job.idempotency_key, job.fingerprint)
                if before is not None:
                    return before
            if (connection.scalar(_COUNT_QUEUED) or 0) >= max_queued:
                raise QueueFull(max_queued)
            if max_of_owner is not None and self._unfinished_of(connection, job.owner) >= max_of_owner:
                raise OwnerQueueFull(max_of_owner)
            stored = connection.execute(_ADD, new_row(job, turn=join(connection, job))).one()
            if job.request.webhook_url is not None:
                expect(connection, job.id, job.request.webhook_url)
            return record_of(stored)

        return self._database.write(write)

    def made_before(self, owner: str, idempotency_key: str, fingerprint: str) -> JobRecord | None:
        """The job that this request made before, if it did; raises `KeyReused` where another request has its key."""
        with self._database.reading() as connection:
            return _made_before(connection, owner, idempotency_key, fingerprint)

    def get(self, job_id: str) -> JobRecord:
        """The job, or `JobNotFound`."""
        with self._database.reading() as connection:
            return self._one(connection, job_id)

    def page(
        self, limit: int, beyond: int | None = None, *, owner: str = LOCAL_OWNER, state: JobState | None = None,
        oldest_first: bool = False,
    ) -> list[JobRecord]:
        """Up to `limit` jobs of `owner`, in this order, that follow the sequence number `beyond`."""
        query = sa.select(jobs).where(jobs.c.owner == owner)
        query = page_of(query, jobs.c.sequence, limit, beyond=beyond, oldest_first=oldest_first)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._database.reading() as connection:
            return [record_of(row) for row in connection.execute(query)]

    def ids(self) -> set[str]:
        """The id of every job that may have files."""
        with self._database.reading() as connection:
            return set(connection.scalars(sa.select(jobs.c.id).where(jobs.c.expired_at.is_(None))))

    def unfinished(self, job_ids: Collection[str]) -> set[str]:
        """Of these, the jobs that have not ended."""
        return self._among(job_ids, jobs.c.state.in_(UNFINISHED))

    def let_go(self, job_ids: Collection[str]) -> set[str]:
        """Of these, the jobs whose files have expired."""
        return self._among(job_ids, jobs.c.expired_at.is_not(None))

    def move(self, job_id: str, to: JobState, **told: Unpack[Ending]) -> JobRecord:
        """Bring the job into another state, stamping its times; on behalf of `claim`, if one is named.

        Raises:
            IllegalTransition: the table does not lead there from the present state; nothing changed.
            ClaimLost: the job was released since that claim; nothing changed.
            JobNotFound: there is no such job.
        """
        def write(connection: sa.Connection) -> JobRecord:
            job = self._one(connection, job_id, to_change=True, claim=told.get("claim"))
            if job.state not in sources_of(to):
                raise IllegalTransition(job_id, job.state, to)
            timings = {**job.timings, **told.get("timings", {})}
            changes: dict[str, Any] = {"state": to, "stage": told.get("stage"), "timings": timings}
            if to == "running" and job.started_at is None:
                changes["started_at"] = time.time()
                changes["timings"]["queued"] = _since(job.created_at, changes["started_at"])
            if to not in UNFINISHED:
                changes["finished_at"] = time.time()
                changes["timings"] |= _closing_timings(job, changes["finished_at"])
            for name in ("video", "error"):
                if (said := told.get(name)) is not None:
                    changes[name] = said.model_dump(mode="json")
            for name in ("thumbnail", "spritesheet"):
                if (picture := told.get(name)) is not None:
                    changes[name] = asdict(picture)
            changed = connection.execute(_CHANGE, {"of_job": job_id, **changes}).one()
            moved(connection, job_id, to)
            return record_of(changed)

        return self._database.write(write)

    def note(self, job_id: str, **known: Unpack[Known]) -> JobRecord:
        """Write down what became known of a running job, on behalf of `claim` if one is named; what is `None` stays as
        it is.

        Raises:
            IllegalTransition: the job does not run (any more): nothing changed, and its work should stop.
            ClaimLost: the job was released since that claim; nothing changed.
            JobNotFound: there is no such job.
        """
        def write(connection: sa.Connection) -> JobRecord:
            job = self._one(connection, job_id, to_change=True, claim=known.get("claim"))
            if job.state != "running":
                raise IllegalTransition(job_id, job.state, f"running ({known.get('stage') or 'unchanged'})")
            plain = ("stage", "actual_prompt", "caption", "render_attempt")
            changes: dict[str, Any] = {name: known.get(name) for name in plain if known.get(name) is not None}
            if timings := known.get("timings"):
                changes["timings"] = {**job.timings, **timings}
            if parameters := known.get("parameters"):
                changes["parameters"] = parameters.model_dump(mode="json")
            if (warning := known.get("warning")) and warning not in job.warnings:
                changes["warnings"] = [*job.warnings, warning]
            if not changes:
                return job
            return record_of(connection.execute(_CHANGE, {"of_job": job_id, **changes}).one())

        return self._database.write(write)

    def release(
        self, job_id: str, claim: int, waiting_for: Awaited, detail: str, *, pause_s: float,
        render_attempt: int | None = None, warning: str | None = None,
    ) -> JobRecord:
        """Give a claimed job back to the queue, where it keeps its place; nobody claims it again for `pause_s`.

        Raises:
            IllegalTransition: it has ended; nothing changed.
            ClaimLost: it was released already; nothing changed.
            JobNotFound: there is no such job.
        """
        def write(connection: sa.Connection) -> JobRecord:
            job = self._one(connection, job_id, to_change=True, claim=claim)
            if job.finished:
                raise IllegalTransition(job_id, job.state, "queued")
            until = time.time() + pause_s
            changes: dict[str, Any] = {
                "state": "queued", "stage": None, "claim": claim + 1, "waiting_for": waiting_for,
                "waiting_detail": detail, "waiting_until": until,
            }
            if render_attempt is not None:
                changes["render_attempt"] = render_attempt
            if warning is not None and warning not in job.warnings:
                changes["warnings"] = [*job.warnings, warning]
            let_go(connection, job_id, not_before=until, needs_vl=job.needs_vl)
            return record_of(connection.execute(_CHANGE, {"of_job": job_id, **changes}).one())

        return self._database.write(write)

    def overdue(self, begun_before: float) -> list[JobRecord]:
        """Waiting jobs that were first begun before then, or, never begun, came before."""
        since = sa.func.coalesce(jobs.c.started_at, jobs.c.created_at)
        with self._database.reading() as connection:
            found = connection.execute(sa.select(jobs).where(jobs.c.state == "queued", since < begun_before))
            return [record_of(row) for row in found]

    def webhook(self, job_id: str) -> Delivery | None:
        """The webhook of a job, if it has one."""
        with self._database.reading() as connection:
            return find(connection, job_id)

    def expire(self, finished_before: float, limit: int, *, completed: bool) -> list[str]:
        """Let go of up to `limit` jobs that ended before: `completed` ones, which are `expired` then, or the others.

        Returns their ids: their files may go.
        """
        with self._database.writing() as connection:
            kind = jobs.c.state == "completed" if completed else jobs.c.state != "completed"
            due = sa.select(jobs.c.id).where(
                jobs.c.expired_at.is_(None), jobs.c.finished_at < finished_before, kind
            ).limit(limit).with_for_update(skip_locked=True)
            job_ids = list(connection.scalars(due))
            connection.execute(_EXPIRE.where(jobs.c.id.in_(job_ids)), {"now": time.time()})
        return job_ids

    def outdated(self, finished_before: float, limit: int) -> list[str]:
        """Up to `limit` jobs without files that ended before and have nobody left to tell."""
        query = sa.select(jobs.c.id).where(
            jobs.c.expired_at.is_not(None), jobs.c.finished_at < finished_before, ~on_its_way(jobs.c.id)
        ).limit(limit)
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    def expire_one(self, job_id: str) -> None:
        """Let go of a job that has ended, however young; one that is not there or has not ended stays as it is."""
        ended = jobs.c.state.not_in(UNFINISHED), jobs.c.expired_at.is_(None)
        self._database.write(
            lambda connection: connection.execute(_EXPIRE.where(jobs.c.id == job_id, *ended), {"now": time.time()})
        )

    def remove(self, *job_ids: str) -> None:
        """Forget jobs; removing one that is not there changes nothing."""
        with self._database.writing() as connection:
            connection.execute(jobs.delete().where(jobs.c.id.in_(job_ids)))
            drop(connection, job_ids)

    def _among(self, job_ids: Collection[str], those: sa.ColumnElement[bool]) -> set[str]:
        asked, found = sorted(set(job_ids)), set[str]()
        with self._database.reading() as connection:
            for first in range(0, len(asked), _ASKED_AT_ONCE):
                some = jobs.c.id.in_(asked[first:first + _ASKED_AT_ONCE])
                found |= set(connection.scalars(sa.select(jobs.c.id).where(some, those)))
        return found

    @staticmethod
    def _unfinished_of(connection: sa.Connection, owner: str) -> int:
        query = sa.select(sa.func.count()).where(jobs.c.owner == owner, jobs.c.state.in_(UNFINISHED))
        return connection.scalar(query) or 0

    @staticmethod
    def _one(
        connection: sa.Connection, job_id: str, *, to_change: bool = False, claim: int | None = None
    ) -> JobRecord:
        row = connection.execute(_ONE_TO_CHANGE if to_change else _ONE, {"of_job": job_id}).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        if claim is not None and row.claim != claim:
            raise ClaimLost(job_id, claim)
        return record_of(row)


def _closing_timings(job: JobRecord, finished_at: float) -> dict[str, float]:
    closing = {"total": _since(job.created_at, finished_at)}
    if job.started_at is None:
        closing["queued"] = closing["total"]
    return closing


def _since(begun_at: float, now: float) -> float:
    return max(0.0, round(now - begun_at, 3))  # the machine's clock may have been set back meanwhile


def _made_before(
    connection: sa.Connection, owner: str, idempotency_key: str, fingerprint: str | None
) -> JobRecord | None:
    query = sa.select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key)
    row = connection.execute(query).one_or_none()
    if row is not None and row.fingerprint != fingerprint:
        raise KeyReused(row.id)
    return None if row is None else record_of(row)
