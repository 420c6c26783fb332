"""AnyFlow on Wan2.1: latents are those of diffusers' pipeline, at any number of steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.anyflow.pipeline_anyflow import AnyFlowPipeline

from tests.checkpoints.parity import a_request, ours, run_pipeline
from tests.checkpoints.tiny_families import save_tiny_family
from tests.unit.video_service.conftest import load_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp("anyflow"), "anyflow")


@pytest.mark.parametrize("steps", [1, 4])
def test_a_flow_map_gives_the_pipelines_latents(folder: Path, steps: int) -> None:

    request = a_request(sampling={"sampler": "flowmap", "steps": steps})
    pipeline: Any = AnyFlowPipeline.from_pretrained(folder)
    expected, frames = run_pipeline(
        pipeline, request, num_inference_steps=steps, height=request.height, width=request.width,
        num_frames=request.num_frames,
    )
    [(latents, mine)] = ours(load_tiny(folder).model, request)
    torch.testing.assert_close(latents, expected.transpose(1, 2), rtol=1e-4, atol=1e-4)
    assert np.abs(mine - frames * 255.0).max() < 0.51


def test_its_spec_is_of_few_steps_without_guidance(folder: Path) -> None:
    info = load_tiny(folder).info
    assert (info.family, info.tasks, info.samplers, info.steps.default) == ("anyflow", ["t2v"], ["flowmap"], 4)
    assert info.guidance_scale.maximum == 1.0
