"""Requests to files: what is asked is resolved and rendered, and what was done is told."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from contracts.models import VideoModelInfo
from contracts.resolve import Resolved, resolve_request
from contracts.videos import RenderResult, VideoRequest
from video_service.families.base import Batch, RenderRequest, VideoModel
from video_service.media.badge import Badge
from video_service.media.clip import open_clip
from video_service.media.mp4 import Mp4Writer, Previews, VideoWriteFailed, WrittenVideo, coding_of
from video_service.render.progress import Report, StageClock
from video_service.render.render import Left, nobody, render
from video_service.render.watching import watched
from web.worker.image import decode_image, fit_picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A model in memory, and what is said of it outside."""

    info: VideoModelInfo
    model: VideoModel
    device: torch.device
    dtype: torch.dtype
    """Of torch's modules."""
    badge: Badge | None = None
    """What is written on every frame."""


def generate(deployed: Deployed, request: VideoRequest, output: Path, report: Report) -> RenderResult:
    """Render `request` into the MP4 file `output` (its folder must exist); blocking, one at a time per model.

    Raises:
        ParameterRefused: a field that the model cannot serve; nothing was computed.
        ImageUnreadable, ClipUnreadable: the bytes of the image, or of the clip to extend, are none.
        VideoWriteFailed: the encoder or the disk failed.
        RenderCanceled: `report` raised it; no file is left.
    """
    (result,) = generate_together(deployed, [(request, output)], report)
    assert result is not None
    return result


def generate_together(
    deployed: Deployed, clips: Sequence[tuple[VideoRequest, Path]], report: Report, left: Left = nobody
) -> list[RenderResult | None]:
    """The same for clips that differ in words, pictures and seed alone, denoised as one; None for each that `left`.

    Raises what `generate` does, and then no clip has a file.
    """
    wanted = [resolve_request(request, deployed.info) for request, _ in clips]
    batch = Batch(tuple(render_request(request, own) for (request, _), own in zip(clips, wanted, strict=True)))
    stages = StageClock(report, deployed.device)
    with ExitStack() as files:
        sinks = [files.enter_context(_written(request, own, output, deployed.badge))
                 for (request, output), own in zip(clips, wanted, strict=True)]
        warnings = render(deployed.model, batch, sinks, stages, left, watched(clips, files))
        with stages("write", sum(own.num_frames for own in wanted)):
            written = [None if place in left() else sink.finish(clips[place][1].parent)
                       for place, sink in enumerate(sinks)]
    return [
        None if file is None else _result(deployed.info, request, own, file, stages).model_copy(
            update={"warnings": [*said, *sink.warnings], "batch": len(clips)})
        for (request, _), own, file, said, sink in zip(clips, wanted, written, warnings, sinks, strict=True)
    ]


def _result(
    info: VideoModelInfo, request: VideoRequest, wanted: Resolved, written: WrittenVideo, stages: StageClock
) -> RenderResult:
    sampling = wanted.sampling
    return RenderResult(
        width=wanted.width, height=wanted.height, num_frames=written.num_frames, fps=wanted.fps,
        steps=sampling.steps, sampler=sampling.sampler, guidance_scale=sampling.guidance_scale,
        guidance_scale_2=sampling.guidance_scale_2, seed=request.seed,
        model=info.id, revision=info.revision, engine=info.engine, engine_reason=info.engine_reason, dtype=info.dtype,
        num_bytes=written.num_bytes, sha256=written.sha256, timings=stages.timings(),
    )


def render_request(request: VideoRequest, wanted: Resolved) -> RenderRequest:
    """The request as a model takes it. Raises `ImageUnreadable`."""
    image, last = (
        None if sent is None else fit_picture(decode_image(sent), wanted.width, wanted.height)
        for sent in (request.image, request.last_image)
    )
    return RenderRequest(
        prompt=request.prompt, negative_prompt=request.negative_prompt, image=image, last_image=last,
        width=wanted.width, height=wanted.height, num_frames=wanted.num_frames, fps=wanted.fps, seed=request.seed,
        sampling=wanted.sampling,
    )


@dataclass(slots=True, kw_only=True)
class _VideoAndPreviews:
    """A `Sink`: the MP4, and the pictures that go with it."""

    writer: Mp4Writer
    previews: Previews
    badge: Badge | None
    doubled: int = 0
    """Frames still to come that the clip before ends with."""
    warnings: list[str] = field(default_factory=list)

    def put(self, frames_THWC: torch.Tensor) -> None:
        frames = frames_THWC.cpu().numpy()[self.doubled :]
        self.doubled = max(0, self.doubled - len(frames_THWC))
        self.show(frames)

    def show(self, frames_THWC: np.ndarray) -> None:
        marked = frames_THWC if self.badge is None else self.badge.on(frames_THWC)
        self.writer.put(marked)
        self.previews.put(marked, frames_THWC)

    def finish(self, folder: Path) -> WrittenVideo:
        self.writer.end()  # the last frames are encoded while the pictures are stored
        try:
            self.previews.write(folder)  # before the video: once that is there, all of them are
        except OSError as error:
            raise VideoWriteFailed(f"the video's pictures could not be stored: {error}") from error
        return self.writer.finish()


@contextmanager
def _written(
    request: VideoRequest, wanted: Resolved, output: Path, badge: Badge | None
) -> Iterator[_VideoAndPreviews]:
    """Where the frames go: into a new file, or behind a clip that is there. Raises `ClipUnreadable`."""
    size = wanted.width, wanted.height, wanted.fps
    if request.extends is None:
        with Mp4Writer(output, *size) as writer:
            yield _VideoAndPreviews(writer=writer, previews=Previews(wanted.num_frames), badge=badge)
        return
    before = open_clip(request.extends)
    before.require(*size)
    as_it_is = before.coding == coding_of(*size)
    with Mp4Writer(output, *size, after=before if as_it_is else None) as writer:
        previews = Previews(before.num_frames + wanted.num_frames - 1)
        sink = _VideoAndPreviews(writer=writer, previews=previews, badge=badge, doubled=1)
        for frame_HWC in before.frames():
            if as_it_is:
                previews.put(frame_HWC[None])
            else:
                sink.show(frame_HWC[None])
        if not as_it_is:
            sink.warnings.append("The clip before was encoded otherwise than this service does, so it was once more.")
        yield sink
