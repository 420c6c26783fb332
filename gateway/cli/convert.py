"""`stillmotion convert …` and `stillmotion warmup`: handed to the video service's commands, in a process of their own,
for they import torch."""

import importlib.util
import sys
from collections.abc import Sequence

from rich.console import Console

from gateway.cli.engines import run_child


def convert(arguments: Sequence[str], console: Console) -> int:
    """Run it with `arguments`, its output on this terminal; returns its exit status."""
    return _run("video_service.families.convert", "Checkpoints are converted", arguments, console)


def warmup(arguments: Sequence[str], console: Console) -> int:
    """The same of the command that loads the models and renders a clip of each."""
    return _run("video_service.worker.warmup", "Models are warmed up", arguments, console)


def _run(module: str, what: str, arguments: Sequence[str], console: Console) -> int:
    if importlib.util.find_spec("diffusers") is None:
        console.print(f"{what} by the video service's libraries: pip install 'stillmotion\\[video]'.")
        return 1
    return run_child([sys.executable, "-m", module, *arguments])
