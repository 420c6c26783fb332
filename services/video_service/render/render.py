"""The story of one render: encode text, condition, denoise, decode, write."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from contracts.videos import RenderResult, RenderStage, VideoRequest
from video_service.catalog import check_request, resolve_sampling
from video_service.layers.umt5 import TextCondition, encode_text
from video_service.media.image import fit_picture, read_picture
from video_service.media.mp4 import Mp4Writer, VideoWriteFailed, WrittenVideo
from video_service.media.previews import Previews
from video_service.render.conditioning import encode_condition, no_condition, picture_tensor
from video_service.render.decode import decode_frames
from video_service.render.progress import Report
from video_service.render.solvers import denoise, draw_noise, make_solver
from video_service.weights.card import TEMPORAL_SCALE
from video_service.weights.load import LoadedModel


@torch.inference_mode()
def generate(model: LoadedModel, request: VideoRequest, output: Path, report: Report) -> RenderResult:
    """Render `request` into the MP4 file `output` (its folder must exist); blocking, one at a time per model.

    Raises:
        RequestRefused: a field that the model cannot serve; nothing was computed.
        PictureUnreadable: the picture's bytes are not a PNG, JPEG or WebP.
        VideoWriteFailed: the encoder or the disk failed.
        RenderCanceled: `report` raised it; no file is left.
    """
    info = model.source.info
    check_request(request, info)
    sampling = resolve_sampling(request, info)
    report, clock = _synchronised(model, report), StageClock()
    with clock.stage("text"):
        text = _encode_text(model, request, sampling.guidance_scale, report)
    with clock.stage("condition"):
        condition = _condition(model, request, report)
    with clock.stage("denoise"):
        generator = torch.Generator("cpu").manual_seed(request.seed)
        noise = draw_noise(_latent_shape(model, request), generator)
        solver = make_solver(
            sampling, shift=model.source.flow_shift, has_picture=request.image is not None, generator=generator
        )
        latents = denoise(model, text, condition, solver, noise, sampling.guidance_scale, report)
    written = _decode_and_write(model, request, latents, output, clock, report)
    return RenderResult(
        width=request.width, height=request.height, num_frames=written.num_frames, fps=request.fps,
        steps=sampling.steps, sampler=sampling.sampler, guidance_scale=sampling.guidance_scale, seed=request.seed,
        model=info.id, revision=info.revision, engine=info.engine, engine_reason=info.engine_reason, dtype=info.dtype,
        num_bytes=written.num_bytes, sha256=written.sha256, timings=clock.timings(),
    )


@dataclass(frozen=True, slots=True)
class StageClock:
    """Seconds by stage."""

    started: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: RenderStage) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def timings(self) -> dict[str, float]:
        """Seconds by stage, and `total` since the clock was made."""
        return {**self.seconds, "total": time.perf_counter() - self.started}


def _encode_text(model: LoadedModel, request: VideoRequest, guidance_scale: float, report: Report) -> TextCondition:
    report("text", 0, 1)
    text = encode_text(model, request.prompt, request.negative_prompt if guidance_scale > 1 else None)
    report("text", 1, 1)
    return text


def _condition(model: LoadedModel, request: VideoRequest, report: Report) -> torch.Tensor | None:
    report("condition", 0, 1)
    if request.image is None:
        condition = no_condition(model, *_latent_shape(model, request)[2:])
    else:
        picture = fit_picture(read_picture(request.image), request.width, request.height)
        condition = encode_condition(model, picture_tensor(picture), request.num_frames)
    report("condition", 1, 1)
    return condition


def _decode_and_write(
    model: LoadedModel, request: VideoRequest, latents_BCTHW: torch.Tensor, output: Path, clock: StageClock,
    report: Report,
) -> WrittenVideo:
    done, previews = 0, Previews(request.num_frames)
    report("decode", 0, request.num_frames)
    with Mp4Writer(output, width=request.width, height=request.height, fps=request.fps) as writer:
        with clock.stage("decode"):
            for frames_THWC in decode_frames(model, latents_BCTHW):
                writer.put(frames_THWC)
                previews.put(frames_THWC)
                done += len(frames_THWC)
                report("decode", done, request.num_frames)
        with clock.stage("write"):
            _write_previews(previews, output.parent)  # before the video: once that is there, all of them are
            written = writer.finish()
    report("write", request.num_frames, request.num_frames)
    return written


def _write_previews(previews: Previews, folder: Path) -> None:
    try:
        previews.write(folder)
    except OSError as error:
        raise VideoWriteFailed(f"the video's thumbnail could not be stored: {error}") from error


def _latent_shape(model: LoadedModel, request: VideoRequest) -> tuple[int, int, int, int, int]:
    scale = model.vae.config["scale_factor_spatial"]
    frames = (request.num_frames - 1) // TEMPORAL_SCALE + 1
    return 1, model.vae.config["z_dim"], frames, request.height // scale, request.width // scale


def _synchronised(model: LoadedModel, report: Report) -> Report:
    """Count work as done when the GPU has done it, not when it was queued."""
    if model.device.type != "cuda":
        return report

    def after_the_device(stage: RenderStage, done: int, total: int) -> None:
        torch.cuda.synchronize(model.device)
        report(stage, done, total)

    return after_the_device
