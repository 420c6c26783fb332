"""I2VGen-XL's frames are those of diffusers' pipeline."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl import I2VGenXLPipeline
from PIL import Image

from tests.checkpoints.parity import SEED, a_request, ours
from tests.checkpoints.tiny_families import save_tiny_family
from tests.unit.video_service.conftest import load_tiny
from video_service.render.generate import Deployed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp("i2vgen"), "i2vgen-xl")


@pytest.fixture(scope="module")
def model(folder: Path) -> Deployed:
    return load_tiny(folder)


@pytest.mark.parametrize("scale", [1.0, 9.0])
@pytest.mark.parametrize(("frames", "size"), [(6, (64, 64)), (3, (96, 64))])
def test_an_image_and_words_give_the_pipelines_frames(
    folder: Path, model: Deployed, picture: Image.Image, scale: float, frames: int, size: tuple[int, int]
) -> None:
    """Any number of frames, DDIM, fps as a condition, a sampled posterior, guidance against no image at all."""
    image = picture.resize((150, 100))
    sampling = {"sampler": "ddim", "steps": 4, "guidance_scale": scale}
    request = a_request(image=image, sampling=sampling, num_frames=frames, width=size[0], height=size[1], fps=8)
    [(latents, mine)] = ours(model.model, request)
    assert mine.shape == (frames, size[1], size[0], 3)
    expected = _theirs(folder, request, "latent")
    assert float((latents - expected).norm() / expected.norm()) < 1e-4
    levels = np.asarray(_theirs(folder, request, "np")[0]) * 255.0
    assert np.abs(mine - levels).max() < 0.51


def test_what_its_spec_says_is_not_what_wans_says(model: Deployed) -> None:
    info = model.info
    assert (info.family, info.tasks, info.samplers, info.text_tokens) == ("i2vgen-xl", ["i2v"], ["ddim"], 77)
    assert (info.num_frames.step, info.num_frames.default, info.size_multiple) == (1, 16, 8)
    assert (info.guidance_scale.default, info.steps.default) == (9.0, 50)


def _theirs(folder: Path, request: Any, output: str) -> Any:
    pipeline: Any = I2VGenXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    # The pipeline looks for the norm where transformers 5 no longer has it.
    pipeline.text_encoder.text_model = SimpleNamespace(final_layer_norm=pipeline.text_encoder.final_layer_norm)
    torch.manual_seed(SEED)  # it samples the image's latents from torch's own generator
    return pipeline(
        prompt=request.prompt, negative_prompt=request.negative_prompt, image=request.image, height=request.height,
        width=request.width, num_frames=request.num_frames, target_fps=request.fps,
        num_inference_steps=request.sampling.steps, guidance_scale=request.sampling.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(SEED), output_type=output,
    ).frames
