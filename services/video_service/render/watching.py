"""Renders that are watched: now and then a look at what they are becoming, beside the steps and not in their way."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch

from contracts.videos import VideoRequest
from video_service.media.preview import Pixels, PreviewWriter
from video_service.queue.files import preview_path
from video_service.render.render import Glimpse, Seen, unseen


def watched(clips: Sequence[tuple[VideoRequest, Path]], files: ExitStack) -> Seen:
    """Leaves glimpses of the clips whose requests ask for them; `files` are closed at the end of the render."""
    paths = {place: preview_path(output) for place, (request, output) in enumerate(clips) if request.preview}
    if not paths:
        return unseen
    writer = files.enter_context(PreviewWriter(paths))

    def seen(here: Sequence[int], look: Glimpse) -> None:
        rows = {row: clip for row, clip in enumerate(here) if clip in paths}
        if rows:
            writer.offer(partial(_pixels, rows, look))

    return seen


def _pixels(clips: Mapping[int, int], look: Glimpse) -> Pixels | None:
    """The rows of a glimpse by the clips they are of. A GPU is told to make them; only who asks for them waits."""
    start_s, began = time.perf_counter(), _mark()
    glimpse_BHW3 = look()
    if glimpse_BHW3 is None:
        return None
    glimpse_BHW3 = glimpse_BHW3.to("cpu", non_blocking=True)
    ended, launched_s = _mark(), time.perf_counter() - start_s

    def arrived() -> tuple[Mapping[int, np.ndarray], float]:
        seconds = launched_s
        if began is not None and ended is not None:
            ended.synchronize()
            seconds = max(seconds, began.elapsed_time(ended) / 1000)
        pictures = glimpse_BHW3.numpy()
        return {clip: pictures[row] for row, clip in clips.items()}, seconds

    return arrived


def _mark() -> torch.cuda.Event | None:
    """Where a GPU's stream is now; None where there is none in use."""
    if not torch.cuda.is_initialized():
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
