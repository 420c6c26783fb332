"""A real worker process whose engine does as the prompt says: for what a model does not do on demand.

`steps` denoising steps of 20 ms each (`slow`: 100 ms); at step 2 the words in the prompt take effect: `die` (SIGKILL),
`exhaust` (asks for more memory than there is), `break` (an unforeseen error), `hang` (never reports again).

Each render that is done adds its id as a line to the file that SCRIPTED_COMPLETIONS names, if it names one.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from contracts.videos import RenderResult, VideoRequest
from video_service.catalog import resolve_sampling
from video_service.progress import Report
from video_service.queue.kept_result import keep_result
from video_service.worker import __main__ as worker
from video_service.worker.__main__ import Engine
from video_service.worker.messages import StartCommand

STEP_S = 0.02


def open_scripted_engine(start: StartCommand) -> Engine:
    def engine(request: VideoRequest, output: Path, report: Report) -> RenderResult:
        sampling = resolve_sampling(request, start.source.info)
        report("text", 1, 1)
        report("denoise", 0, sampling.steps)
        for step in range(1, sampling.steps + 1):
            time.sleep(5 * STEP_S if "slow" in request.prompt else STEP_S)
            if step == 2:
                misbehave(request.prompt)
            report("denoise", step, sampling.steps)
        report("decode", request.num_frames, request.num_frames)
        content = f"{request.prompt} {request.seed}".encode() * 100
        output.write_bytes(content)
        info = start.source.info
        return RenderResult(
            width=request.width, height=request.height, num_frames=request.num_frames, fps=request.fps,
            steps=sampling.steps, sampler=sampling.sampler, guidance_scale=sampling.guidance_scale, seed=request.seed,
            model=info.id, revision=info.revision, engine=info.engine, dtype=info.dtype, num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            timings={"denoise": STEP_S * sampling.steps, "total": STEP_S * sampling.steps + 0.01},
        )

    return engine


def keep_and_count(video: Path, result: RenderResult) -> None:
    """What the real worker does, with a line for each render that was done."""
    keep_result(video, result)
    if place := os.environ.get("SCRIPTED_COMPLETIONS"):
        with Path(place).open("a") as file:
            file.write(f"{video.parent.name}\n")


def misbehave(prompt: str) -> None:
    if "die" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    if "exhaust" in prompt:
        bytearray(1 << 62)
    if "break" in prompt:
        raise KeyError("no such thing")
    if "hang" in prompt:
        time.sleep(3600)


if __name__ == "__main__":
    worker.keep_result = keep_and_count
    sys.exit(worker.run(open_scripted_engine))
