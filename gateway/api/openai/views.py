"""A stored job in OpenAI's words."""

from contracts.jobs import JobProgress, JobState
from contracts.openai.videos import Video, VideoError, VideoStatus
from gateway.jobs.job import JobRecord
from gateway.jobs.ledger import present

# An expired video was completed; `expires_at` says since when its files are gone.
_STATUS: dict[JobState, VideoStatus] = {
    "queued": "queued", "running": "in_progress", "completed": "completed", "expired": "completed",
}


def present_video(job: JobRecord, live: JobProgress | None) -> Video:
    """The job as a `video`; what ended in any other way than well has failed, and says how."""
    used, progress = job.parameters, present(job, live, None).progress
    return Video(
        id=job.id, status=_STATUS.get(job.state, "failed"), progress=int(progress.fraction * 100),
        created_at=int(job.created_at),
        completed_at=int(job.finished_at) if job.video is not None and job.finished_at else None,
        expires_at=int(job.expired_at) if job.expired_at else None,
        model=used.model, prompt=job.request.prompt, seconds=f"{used.num_frames / used.fps:g}",
        size=f"{used.width}x{used.height}", remixed_from_video_id=job.remixed_from, error=_error(job),
    )


def _error(job: JobRecord) -> VideoError | None:
    if job.state in _STATUS:
        return None
    if job.error is None:
        return VideoError(code=job.state, message=f"The video is {job.state}.")
    return VideoError(code=job.error.code, message=job.error.detail)
