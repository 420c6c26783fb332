"""The story of one render: encode text, condition, denoise, decode, write."""

from pathlib import Path

from contracts.videos import RenderResult, VideoRequest
from video_service.load import LoadedModel
from video_service.progress import Report


def generate(model: LoadedModel, request: VideoRequest, output: Path, report: Report) -> RenderResult:
    """Render `request` into the MP4 file `output` (its folder must exist); blocking, one at a time per model.

    Raises:
        RequestRefused: a field that the model cannot serve; nothing was computed.
        PictureUnreadable: the picture's bytes are not a PNG, JPEG or WebP.
        RenderCanceled: `report` raised it; no file is left.
    """
    raise NotImplementedError
