"""The worker's own note that a video is whole: a render that is done stays done, whoever dies before it is reported."""

from pathlib import Path

from pydantic import ValidationError

from contracts.videos import RenderResult
from web.durable import replace_file

RESULT = "result.json"


def keep_result(video: Path, result: RenderResult) -> None:
    """Write the note beside the finished video, whole or not at all; raises `OSError`."""
    replace_file(video.with_name(RESULT), result.model_dump_json().encode())


def kept_result(video: Path) -> RenderResult | None:
    """What the worker noted, where the video it speaks of is there in full."""
    try:
        result = RenderResult.model_validate_json(video.with_name(RESULT).read_bytes())
        return result if video.stat().st_size == result.num_bytes else None
    except (OSError, ValidationError):
        return None
