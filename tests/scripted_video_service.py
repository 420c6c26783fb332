"""`python -m video_service`, with workers that run `scripted_video_worker.py`."""

import sys
from pathlib import Path

from video_service.__main__ import main

if __name__ == "__main__":
    sys.exit(main((sys.executable, str(Path(__file__).with_name("scripted_video_worker.py")))))
