"""`stillmotion engines …`: handed to the video service's own command, in a process of its own, for it imports torch."""

import asyncio
import importlib.util
import sys
from collections.abc import Sequence

from rich.console import Console

COMMAND = (sys.executable, "-m", "video_service.engines")
_INTERRUPTED = 130


def engines(arguments: Sequence[str], console: Console, command: Sequence[str] = COMMAND) -> int:
    """Run `command` with `arguments`, its output on this terminal; returns its exit status."""
    if importlib.util.find_spec("onnxscript") is None:
        console.print("Engines need their libraries: pip install 'stillmotion\\[engines,video]'.")
        return 1
    try:
        return asyncio.run(_run([*command, *arguments]))
    except KeyboardInterrupt:
        return _INTERRUPTED


async def _run(command: Sequence[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    try:
        return await process.wait()
    finally:
        # Ctrl-C reaches the whole terminal, so the process is ending by itself; it leaves nothing half-built.
        await process.wait()
