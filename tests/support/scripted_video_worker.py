"""A real worker process whose engine does as the prompt says: for what a model does not do on demand.

`steps` denoising steps of 20 ms each (`slow`: 100 ms); at step 2 the words in the prompt take effect: `die` (SIGKILL),
`exhaust` (asks for more memory than there is), `break` (an unforeseen error), `poison` (an error that leaves a CUDA
device unusable), `hang` (never reports again).

Each render that is done adds a line to the file that SCRIPTED_COMPLETIONS names, if it names one: its job's id, and
the process of the service. SCRIPTED_DEATHS=1 kills the worker at step 2 of every render.
"""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from contracts.models import VideoModelList
from contracts.resolve import resolve_request
from contracts.videos import RenderResult, VideoRequest
from tests.checkpoints.tiny_wan_card import TINY_INFO
from video_service.render.progress import Report
from video_service.worker.program import worker_program
from web.calls import current_call
from web.worker.child import run

STEP_S = 0.02


class ScriptedModels:
    """The tiny model, and what the prompts say."""

    def models(self) -> VideoModelList:
        return VideoModelList(data=[TINY_INFO])

    def look_again(self) -> VideoModelList:
        return self.models()

    def render(
        self, request: VideoRequest, output: Path, report: Report, tell: Callable[[VideoModelList], None]
    ) -> RenderResult:
        info = TINY_INFO
        sampling = resolve_request(request, info).sampling
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
        note_completion()
        return RenderResult(
            width=request.width, height=request.height, num_frames=request.num_frames, fps=request.fps,
            steps=sampling.steps, sampler=sampling.sampler, guidance_scale=sampling.guidance_scale, seed=request.seed,
            model=info.id, revision=info.revision, engine=info.engine, dtype=info.dtype, num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            timings={"denoise": STEP_S * sampling.steps, "total": STEP_S * sampling.steps + 0.01},
        )


    def render_together(
        self, clips: Sequence[tuple[VideoRequest, Path]], report: Report, tell: Callable[[VideoModelList], None],
        left: Callable[[], frozenset[int]],
    ) -> list[RenderResult | None]:
        results = []
        for place, (request, output) in enumerate(clips):
            result = self.render(request, output, report, tell)
            results.append(None if place in left() else result.model_copy(update={"batch": len(clips)}))
        return results


def note_completion() -> None:
    call = current_call()
    if (place := os.environ.get("SCRIPTED_COMPLETIONS")) and call is not None:
        with Path(place).open("a") as file:
            file.write(f"{call.job_id} {os.getppid()}\n")


def misbehave(prompt: str) -> None:
    if "die" in prompt or os.environ.get("SCRIPTED_DEATHS"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "exhaust" in prompt:
        bytearray(1 << 62)
    if "break" in prompt:
        raise KeyError("no such thing")
    if "poison" in prompt:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if "hang" in prompt:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(run(worker_program(lambda settings: ScriptedModels())))
