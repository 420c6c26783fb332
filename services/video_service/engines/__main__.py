"""`python -m video_service.engines build|list|verify`, which `stillmotion engines` runs for a video checkpoint."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.build.command import Service, run
from engines.build.command import command_line as command_line_of
from engines.store.store import EngineStore
from video_service.engines.choice import say_ready
from video_service.engines.shape import ClipShape
from video_service.settings import VideoSettings
from video_service.weights.device import Device
from web.command import run_command
from web.worker.errors import ModelUnavailable

if TYPE_CHECKING:
    from video_service.engines.clips import ClipGraphs
    from video_service.model import ModelSource


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run(_SERVICE, arguments)


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    return command_line_of(_SERVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint, and the clips that engines of it are for."""

    source: "ModelSource"

    @property
    def id(self) -> str:
        return self.source.info.id

    @property
    def revision(self) -> str:
        return self.source.info.revision

    @property
    def device(self) -> Device:
        return self.source.device

    def open(self) -> "ClipGraphs":
        """Its graphs. Raises `ModelUnavailable`."""
        from video_service.engines.clips import ClipGraphs

        if not self.source.family.render_graphs:
            raise ModelUnavailable(f"no engines are built of {self.source.family.name}: it renders in torch alone")
        return ClipGraphs(self.source)

    def shapes(self, options: argparse.Namespace) -> list[ClipShape]:
        """The clips to build for: those named, else the model's own default. Raises `ValueError`."""
        info = self.source.info
        tokens, rule = info.text_tokens, info.num_frames
        if options.clips:
            return [ClipShape.parse_clip(clip, tokens, rule) for clip in options.clips.split(",")]
        return [ClipShape.parse(options.size or info.sizes[0], options.frames or rule.default, tokens, rule)]


def _settings(model: str | None = None) -> VideoSettings:
    # The choice of an engine is what this prepares: it must not fail for want of one.
    settings = VideoSettings()
    return settings.model_copy(update={"engine": "torch", "model": model or settings.model_names[0]})


def _store() -> EngineStore:
    return EngineStore(_settings().engine_store_dir.resolve())


def _find(model: str | None) -> Checkpoint:
    from video_service.model import find_model

    return Checkpoint(source=find_model(_settings(model)))


def _ready(model: str | None, store: EngineStore) -> Iterable[str]:
    """Which whole sets this deployment's model could run on."""
    from video_service.model import find_model

    return say_ready(store, find_model(_settings(model)).situation)


def _add_shape_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", help="WIDTHxHEIGHT; default the model's own")
    command.add_argument("--frames", type=int, help="as the model takes them; default its own")
    command.add_argument("--clips", help="instead of both: WIDTHxHEIGHTxFRAMES, several with commas")


_SERVICE = Service(
    prog="stillmotion engines", model_help="checkpoint folder or hub id; default VIDEO_MODEL",
    add_shape_options=_add_shape_options, store=_store, find=_find, ready=_ready, refusals=(ModelUnavailable,),
)

if __name__ == "__main__":
    run_command(main)
