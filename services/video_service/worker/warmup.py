"""`python -m video_service.worker.warmup`, which `stillmotion warmup` runs: every model is loaded and renders one clip
of its default size. What is compiled on the way lies in the caches beside the engines, and a model that cannot render
on this machine is known before it serves.
"""

import argparse
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import video_service
from contracts.videos import RenderResult, VideoRequest
from engines.store.cuda import cuda_capability, cuda_name
from video_service.render.progress import Report
from video_service.render.warm_up import warm_up
from video_service.settings import VideoSettings
from web.command import run_command, say
from web.durable import replace_file
from web.logs import configure_logging
from web.worker.errors import ModelUnavailable
from web.worker.faults import one_line

if TYPE_CHECKING:
    from video_service.deployment import Deployment

log = logging.getLogger(__name__)

_OF_NO_RENDER = {"host", "port", "internal_token", "log_level", "data_dir", "engines_dir", "warm_up"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 where a model cannot be loaded or rendered with."""
    options = command_line().parse_args(arguments)
    settings = VideoSettings()
    configure_logging("video_service", settings.log_level)
    os.umask(0o077)
    from video_service.deployment import Deployment  # torch takes seconds, and --help needs none

    deployment = Deployment(settings)
    marker = settings.engine_store_dir / "caches" / f"warm-{_key(settings, deployment)}.json"
    if options.if_needed and marker.exists():
        say(f"Warmed up before: {marker}")
        return 0
    try:
        seconds = _warm_up(deployment)
    except Exception as error:  # whatever a model raises, it cannot serve here
        log.error("the models cannot be warmed up", exc_info=error)
        say(str(error) if isinstance(error, ModelUnavailable) else one_line(error))
        return 1
    marker.parent.mkdir(parents=True, exist_ok=True)
    replace_file(marker, json.dumps({"seconds": seconds, "gpu": cuda_name(), "at": time.time()}).encode())
    return 0


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(
        prog="stillmotion warmup", description="Load the models of VIDEO_MODEL or VIDEO_MODELS and render one clip of "
        "each, so that what a GPU needs compiled is there.")
    parser.add_argument("--if-needed", action="store_true", help="end at once where it was done before, for the same "
                        "models, GPU, settings and versions")
    return parser


def _warm_up(deployment: "Deployment") -> dict[str, float]:
    """The seconds of each model, loading included. Raises what loading and rendering raise."""
    found = deployment.models()
    if found.absent:
        raise ModelUnavailable(" ".join(absent.reason for absent in found.absent))
    seconds = {}
    for model in found.data:
        seconds[model.id] = round(warm_up(partial(_render, deployment, model.id), model), 1)
        info = next(known for known in deployment.models().data if known.id == model.id)
        say(f"{model.id} was loaded and rendered {model.sizes[0]} in {seconds[model.id]} s: {info.engine_reason}")
    return seconds


def _render(
    deployment: "Deployment", model: str, request: VideoRequest, output: Path, report: Report
) -> RenderResult:
    return deployment.render(request.model_copy(update={"model": model}), output, report, lambda _: None)


def _key(settings: VideoSettings, deployment: "Deployment") -> str:
    """Of all that what is compiled depends on: weights, GPU, libraries, our own code, and how it is set up."""
    models = [(model.id, model.revision) for model in deployment.models().data]
    told = (models, cuda_name(), cuda_capability(), version("torch"), settings.model_dump_json(exclude=_OF_NO_RENDER))
    digest = hashlib.sha256(repr(told).encode())
    for path in sorted(Path(video_service.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    run_command(main)
