"""`stillmotion convert …`: handed to the video service's command, in a process of its own, for it imports torch."""

import importlib.util
import sys
from collections.abc import Sequence

from rich.console import Console

from gateway.cli.engines import run_child


def convert(arguments: Sequence[str], console: Console) -> int:
    """Run it with `arguments`, its output on this terminal; returns its exit status."""
    if importlib.util.find_spec("diffusers") is None:
        console.print("Checkpoints are converted by the video service's libraries: pip install 'stillmotion\\[video]'.")
        return 1
    return run_child([sys.executable, "-m", "video_service.families.convert", *arguments])
