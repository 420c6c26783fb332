"""Our frames are diffusers' frames: same checkpoint, same seed, float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from PIL import Image

from contracts.models import Sampler
from tests.checkpoints.parity import a_request, assert_same, ours, theirs
from tests.unit.video_service.conftest import load_tiny
from video_service.layers.pixels import to_levels
from video_service.layers.umt5 import clean_prompt
from video_service.render.generate import Deployed

CASES = [("euler", 1.0, 4), ("euler", 3.0, 3), ("unipc", 1.0, 4), ("unipc", 3.0, 3)]


@pytest.mark.parametrize(("sampler", "guidance_scale", "steps"), CASES)
def test_picture_to_video_equals_the_diffusers_pipeline(
    tiny_folder: Path, tiny_model: Deployed, picture: Image.Image, sampler: Sampler, guidance_scale: float, steps: int
) -> None:
    """36 channels: mask, latents of [picture, zeros] and noise give WanImageToVideoPipeline's frames."""
    sampling = {"sampler": sampler, "steps": steps, "guidance_scale": guidance_scale}
    request = a_request(image=picture, sampling=sampling)
    pipeline = WanImageToVideoPipeline.from_pretrained(tiny_folder)
    expected = theirs(pipeline, request, image=picture, max_sequence_length=16)
    [mine] = ours(tiny_model.model, request)
    assert_same(mine, expected)


@pytest.mark.parametrize(("sampler", "guidance_scale", "steps"), CASES)
def test_words_to_video_equals_the_diffusers_pipeline(
    wan_t2v_folder: Path, sampler: Sampler, guidance_scale: float, steps: int
) -> None:
    """16 channels and the 8x VAE of Wan2.1 give WanPipeline's frames."""
    request = a_request(sampling={"sampler": sampler, "steps": steps, "guidance_scale": guidance_scale})
    [mine] = ours(load_tiny(wan_t2v_folder).model, request)
    assert_same(mine, theirs(WanPipeline.from_pretrained(wan_t2v_folder), request))


@pytest.mark.parametrize("sampler", ["euler", "sde"])
def test_a_clip_of_a_batch_is_the_clip_alone(tiny_model: Deployed, picture: Image.Image, sampler: Sampler) -> None:
    """Own words, image and seed for each; the fresh noise of the SDE form is each clip's own too."""
    sampling = {"sampler": sampler, "steps": 3}
    requests = [
        a_request(image=picture, sampling=sampling),
        a_request(image=picture.rotate(90), prompt="a fox runs", seed=3, sampling=sampling),
    ]
    together = ours(tiny_model.model, *requests)
    for request, (latents, frames) in zip(requests, together, strict=True):
        [(alone, alone_frames)] = ours(tiny_model.model, request)
        torch.testing.assert_close(latents, alone, rtol=1e-5, atol=1e-5)
        assert np.abs(frames.astype(int) - alone_frames).max() <= 1


@pytest.mark.parametrize("text", ["A &lt;b&gt;  cat\n", "caf&amp;eacute; â€œquotedâ€\x9d", "  一只 猫 ", "ﬁne…"])
def test_prompts_are_cleaned_as_wan_cleans_them(text: str) -> None:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert clean_prompt(text) == prompt_clean(text)


@pytest.mark.parametrize("scale", [4, 8])
@torch.inference_mode()
def test_frames_do_not_depend_on_the_decode_chunk(tiny_model: Deployed, wan_t2v_folder: Path, scale: int) -> None:
    """The causal history makes any chunk length equal `vae.decode` of the whole clip."""
    model: Any = (tiny_model if scale == 4 else load_tiny(wan_t2v_folder)).model
    latents = torch.randn(1, 16, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    vae = model.vae
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    whole = vae.decode(latents * std + mean, return_dict=False)[0][0]
    expected = ((whole + 1) * 127.5).permute(1, 2, 3, 0).numpy()
    for chunk in (1, 2, 5):
        pieces = [to_levels(frames)[0].numpy() for frames in model.decode_floats(latents, chunk)]
        assert [len(piece) for piece in pieces] == [1, *[4 * n for n in {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[chunk]]]
        assert np.abs(np.concatenate(pieces) - expected).max() < 0.51
