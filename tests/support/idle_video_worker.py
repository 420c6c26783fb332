"""A real worker process that says at once what the model of the file in its first argument can do, and then renders
for ever: for tests of what is answered while renders wait. It imports no model library.
"""

import sys
import time
from pathlib import Path
from typing import Any

from contracts.errors import Problem
from contracts.models import VideoModelInfo, VideoModelList
from web.worker.child import Handler, Report, WorkerProgram, run


def open_model(_: object) -> tuple[VideoModelList, Handler]:
    return VideoModelList.model_validate_json(Path(sys.argv[1]).read_bytes()), render_for_ever


def render_for_ever(_: Any, report: Report) -> None:
    while True:
        report.check()
        time.sleep(0.01)


def explain(error: Exception) -> Problem:
    return Problem(status=500, code="render_failed", title="The render failed", detail=repr(error))


def command(info: VideoModelInfo, folder: Path) -> tuple[str, ...]:
    """How the service starts it."""
    path = folder / "info.json"
    path.write_text(VideoModelList(data=[info]).model_dump_json())
    return sys.executable, __file__, str(path)


if __name__ == "__main__":
    sys.exit(run(WorkerProgram(open_model=open_model, explain=explain)))
