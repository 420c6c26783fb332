"""The render before the first request."""

from functools import partial
from pathlib import Path

import pytest

from contracts.models import VideoTask
from contracts.resolve import resolve_request
from contracts.videos import RenderResult, VideoRequest
from tests.unit.video_service.conftest import load_tiny
from video_service.render.generate import Deployed, generate
from video_service.render.progress import Report
from video_service.render.warm_up import warm_up


def test_it_renders_what_a_request_without_parameters_gets_and_leaves_nothing(tiny_model: Deployed) -> None:
    seen: list[tuple[RenderResult, Path]] = []

    def engine(request: VideoRequest, output: Path, report: Report) -> RenderResult:
        seen.append((generate(tiny_model, request, output, report), output))
        assert output.exists()
        return seen[-1][0]

    assert warm_up(engine, tiny_model.info) > 0
    [(result, output)] = seen
    info = tiny_model.info
    assert (f"{result.width}x{result.height}", result.num_frames) == (info.sizes[0], info.num_frames.default)
    assert result.steps == 2, "the fewest with a preview between them"
    assert not output.parent.exists()


@pytest.mark.parametrize("tasks", [["t2v"], ["i2v"], ["flf2v"], ["i2v", "t2v"]])
@pytest.mark.parametrize("sampler", ["unipc", "sde"])
def test_every_model_takes_it(wan_t2v_folder: Path, tasks: list[VideoTask], sampler: str) -> None:
    info = load_tiny(wan_t2v_folder).info.model_copy(update={"tasks": tasks, "samplers": [sampler]})

    def engine(request: VideoRequest, output: Path, report: Report) -> RenderResult:
        resolve_request(request, info)
        raise StopIteration

    with pytest.raises(StopIteration):
        warm_up(partial(engine), info)
