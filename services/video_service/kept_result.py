"""The worker's own note that a video is whole: a render that is done stays done, whoever dies before it is reported."""

import os
from pathlib import Path

from pydantic import ValidationError

from contracts.videos import RenderResult

RESULT = "result.json"


def keep_result(video: Path, result: RenderResult) -> None:
    """Write the note beside the finished video, whole or not at all; raises `OSError`."""
    note = video.with_name(RESULT)
    temporary = note.with_name(f"{RESULT}.tmp")
    with temporary.open("wb") as file:
        file.write(result.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(note)


def kept_result(video: Path) -> RenderResult | None:
    """What the worker noted, where the video it speaks of is there in full."""
    try:
        result = RenderResult.model_validate_json(video.with_name(RESULT).read_bytes())
        return result if video.stat().st_size == result.num_bytes else None
    except (OSError, ValidationError):
        return None
