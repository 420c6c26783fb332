"""AnyFlow-FAR: latents are those of diffusers' pipeline, chunk after chunk, from words and from a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.anyflow.pipeline_anyflow_far import AnyFlowFARPipeline
from PIL import Image

from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.tiny_families import save_tiny_family
from tests.unit.video_service.conftest import load_tiny
from video_service.families.anyflow_far import _cut


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp("far"), "anyflow-far")


@pytest.mark.parametrize(("frames", "steps", "from_picture"), [(9, 2, False), (13, 1, True)])
def test_chunk_by_chunk_it_gives_the_pipelines_latents(
    folder: Path, picture: Image.Image, frames: int, steps: int, from_picture: bool
) -> None:
    """The third chunk, which 9 frames end within, attends to the first in coarser patches."""
    request = a_request(
        num_frames=frames, image=picture if from_picture else None, sampling={"sampler": "flowmap", "steps": steps})
    pipeline: Any = AnyFlowFARPipeline.from_pretrained(folder)
    chunks = _cut((1, 1, 2, 1), (frames - 1) // 4 + 1)
    call: dict[str, Any] = {"num_inference_steps": steps, "height": 64, "width": 64, "num_frames": frames,
                            "chunk_partition": chunks}
    if from_picture:
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
        call["video"] = pixels.permute(2, 0, 1)[None, None]
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt=request.prompt, **call, generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type="latent").frames
    [(latents, mine)] = ours(load_tiny(folder).model, request)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)
    assert mine.shape == (frames, 64, 64, 3)


def test_its_spec_is_of_words_and_pictures_up_to_its_chunks(folder: Path) -> None:
    info = load_tiny(folder).info
    assert (info.family, info.tasks, info.samplers, info.batches) == ("anyflow-far", ["t2v", "i2v"], ["flowmap"], False)
    assert (info.steps.default, info.num_frames.maximum, info.size_multiple) == (4, 17, 32)
    assert _cut((1, 3, 3, 3, 3, 3, 3, 2), 21) == [1, 3, 3, 3, 3, 3, 3, 2]
