"""`stillmotion engines …`: handed to the command of the service whose checkpoint it is, in a process of its own, for it
imports torch."""

import argparse
import asyncio
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

_VIDEO, _VL = "video_service.engines", "vl_service.qwen.engines"
_INTERRUPTED = 130


def engines(arguments: Sequence[str], console: Console, command: Sequence[str] | None = None) -> int:
    """Run `command` with `arguments`, its output on this terminal; returns its exit status.

    Args:
        command: default the service's whose kind of checkpoint `--model` names.
    """
    module = module_for(arguments)
    if importlib.util.find_spec("onnxscript") is None:
        extra = "vl" if module == _VL else "video"
        console.print(f"Engines need their libraries: pip install 'stillmotion\\[engines,{extra}]'.")
        return 1
    command = command or (sys.executable, "-m", module)
    return run_child([*command, *arguments])


def module_for(arguments: Sequence[str]) -> str:
    """Which service's command: the vision-language service's for a folder in its checkpoints' layout, or a hub id with
    VL in its name, as all Qwen-VL checkpoints have; else the video service's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default="")
    model = parser.parse_known_args(arguments)[0].model
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        # A pipeline of several models has an index of them, a single model only its configuration.
        single = (folder / "config.json").is_file() and not (folder / "model_index.json").is_file()
        return _VL if single else _VIDEO
    return _VL if re.search(r"(?i)\bVL\b", model.rpartition("/")[2]) else _VIDEO


def run_child(command: Sequence[str]) -> int:
    """Run it to its end, its output on this terminal; returns its exit status."""
    try:
        return asyncio.run(_run(command))
    except KeyboardInterrupt:
        return _INTERRUPTED


async def _run(command: Sequence[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command)
    try:
        return await process.wait()
    finally:
        # Ctrl-C reaches the whole terminal, so the process is ending by itself; it leaves nothing half-built.
        await process.wait()
