"""`python -m video_service.engines build|list|verify`, which `stillmotion engines` runs for a video checkpoint."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine_store.store import EngineStore
from engines.command import Service, run
from engines.command import command_line as command_line_of
from video_service.catalog import find_model
from video_service.engines.choice import say_ready, situation_of
from video_service.engines.shape import ClipShape
from video_service.settings import VideoSettings
from video_service.weights.card import TEMPORAL_SCALE
from video_service.weights.checkpoint import ModelUnavailable
from video_service.weights.device import Device

if TYPE_CHECKING:
    from video_service.engines.buildable import Buildable
    from video_service.engines.clips import ClipGraphs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run(_SERVICE, arguments)


def command_line() -> argparse.ArgumentParser:
    """What the command takes."""
    return command_line_of(_SERVICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoModel:
    """A checkpoint, and the clips that engines of it are for."""

    source: "Buildable"

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def revision(self) -> str:
        return self.source.revision

    @property
    def device(self) -> Device:
        return self.source.device

    def open(self) -> "ClipGraphs":
        """Its graphs. Raises `ModelUnavailable`."""
        from video_service.engines.clips import ClipGraphs

        return ClipGraphs(self.source)

    def shapes(self, options: argparse.Namespace) -> list[ClipShape]:
        """The clips to build for: those named, else the model's own default. Raises `ValueError`."""
        source = self.source
        tokens, info = source.max_sequence_length, getattr(source, "info", None)
        if options.clips:
            return [ClipShape.parse_clip(clip, tokens) for clip in options.clips.split(",")]
        if info is not None:
            return [ClipShape.parse(options.size or info.sizes[0], options.frames or info.num_frames.default, tokens)]
        if not options.size or not options.frames:
            raise ValueError(f"{source.id} is not served, so it has no sizes of its own: give --size and --frames")
        scale = getattr(source, "temporal_scale", TEMPORAL_SCALE)
        return [ClipShape.parse(options.size, options.frames, tokens, scale)]


def _settings(model: str | None = None) -> VideoSettings:
    # The choice of an engine is what this prepares: it must not fail for want of one.
    return VideoSettings().model_copy(update={"engine": "torch"} | ({"model": model} if model else {}))


def _store() -> EngineStore:
    return EngineStore(_settings().engine_store_dir.resolve())


def _find(model: str | None) -> VideoModel:
    from video_service.engines.buildable import find_buildable

    return VideoModel(source=find_buildable(_settings(model)))


def _ready(model: str | None, store: EngineStore) -> Iterable[str]:
    """Which whole sets this deployment's model could run on."""
    source = find_model(_settings(model))
    return say_ready(store, situation_of(
        source.revision, source.device, text_tokens=source.max_sequence_length, steps=source.info.steps.default))


def _add_shape_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--size", help="WIDTHxHEIGHT; default the model's own")
    command.add_argument("--frames", type=int, help="4k+1; default the model's own")
    command.add_argument("--clips", help="instead of both: WIDTHxHEIGHTxFRAMES, several with commas")


_SERVICE = Service(
    prog="stillmotion engines", model_help="checkpoint folder or hub id; default VIDEO_MODEL",
    add_shape_options=_add_shape_options, store=_store, find=_find, ready=_ready, refusals=(ModelUnavailable,),
)

if __name__ == "__main__":
    sys.exit(main())
