"""The jobs table: its columns, and a row from and to what a job is."""

import time
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from contracts.errors import Problem
from contracts.jobs import EffectiveParameters, GenerateOptions, VideoFile
from gateway.auth.keys import LOCAL_OWNER
from gateway.database.database import metadata
from gateway.jobs.job import JobRecord, NewJob, StoredPicture

jobs = sa.Table(
    "jobs", metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("owner", sa.String(64), nullable=False, server_default=LOCAL_OWNER),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(16)),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("turn", sa.Integer, nullable=False, server_default="1"),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("request_id", sa.String(128), nullable=False),
    sa.Column("traceparent", sa.String(64)),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("picture", sa.JSON(none_as_null=True)),
    sa.Column("actual_prompt", sa.Text),
    sa.Column("caption", sa.Text),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("timings", sa.JSON, nullable=False),
    sa.Column("render_attempt", sa.Integer, nullable=False),
    sa.Column("video", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("remixed_from", sa.String(64)),
    sa.Column("last_picture", sa.JSON(none_as_null=True)),
    sa.Column("thumbnail", sa.JSON(none_as_null=True)),
    sa.Column("spritesheet", sa.JSON(none_as_null=True)),
    sa.Column("expired_at", sa.Float),
    sa.Column("claim", sa.Integer, nullable=False, server_default="0"),
    sa.Column("waiting_for", sa.String(32)),
    sa.Column("waiting_detail", sa.Text),
    sa.Column("waiting_until", sa.Float),
    sa.Index("jobs_to_expire", "expired_at", "finished_at"),
    sa.Index("jobs_waiting", "state", "priority", "sequence"),
    sa.Index("jobs_of_owner", "owner", "sequence"),
    sa.Index("jobs_of_idempotency_key", "owner", "idempotency_key", unique=True),
    sqlite_autoincrement=True,  # a removed job's number is never given again: cursors stay true
)


def new_row(job: NewJob, turn: int) -> dict[str, Any]:
    """Of a job that was accepted."""
    return {
        "id": job.id, "owner": job.owner, "state": "queued", "priority": job.priority, "turn": turn,
        "created_at": time.time(), "request_id": job.request_id, "traceparent": job.traceparent,
        # Without defaults: the version before refuses fields it does not know, and works on jobs that use none of them.
        "request": job.request.model_dump(mode="json", exclude_defaults=True),
        "parameters": job.parameters.model_dump(mode="json"),
        "picture": asdict(job.picture) if job.picture else None, "warnings": list(job.warnings), "timings": {},
        "render_attempt": 0, "idempotency_key": job.idempotency_key, "fingerprint": job.fingerprint,
        "remixed_from": job.remixed_from, "last_picture": asdict(job.last_picture) if job.last_picture else None,
    }


def record_of(row: sa.Row[Any]) -> JobRecord:
    """A whole row as a job; what a later version wrote of it besides is left out."""
    values = row._asdict()
    values["request"] = GenerateOptions.model_validate(values["request"], extra="ignore")
    values["parameters"] = EffectiveParameters.model_validate(values["parameters"], extra="ignore")
    for name in ("picture", "last_picture", "thumbnail", "spritesheet"):
        values[name] = StoredPicture(**values[name]) if values[name] else None
    values["warnings"] = tuple(values["warnings"])
    values["video"] = VideoFile.model_validate(values["video"], extra="ignore") if values["video"] else None
    values["error"] = Problem.model_validate(values["error"], extra="ignore") if values["error"] else None
    return JobRecord(**values)
