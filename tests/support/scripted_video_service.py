"""`python -m video_service`, with workers that run `scripted_video_worker.py`.

SCRIPTED_CRASH=1 puts a fault into the queue: the task that carries renders out crashes at the end of the first.
"""

import os
import sys
from pathlib import Path
from typing import Any

from web.worker.imports import lasting_imports


def crash(self: Any, render: Any, result: Any) -> None:
    """In place of `RenderQueue.complete`."""
    raise ZeroDivisionError("a fault of ours")


if __name__ == "__main__":
    with lasting_imports():
        from video_service.http.serve import main
        from video_service.queue.queue import RenderQueue
    if os.environ.get("SCRIPTED_CRASH"):
        RenderQueue.complete = crash
    sys.exit(main((sys.executable, str(Path(__file__).with_name("scripted_video_worker.py")))))
