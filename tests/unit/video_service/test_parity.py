"""Our frames are diffusers' frames: same checkpoint, same seed, float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from PIL import Image

from contracts.models import Sampler
from tests.unit.video_service.conftest import load_tiny
from video_service.catalog import Sampling
from video_service.layers.umt5 import clean_prompt, encode_text
from video_service.render.conditioning import encode_condition, picture_tensor
from video_service.render.decode import decode_frames
from video_service.render.progress import silent
from video_service.render.solvers import denoise, draw_noise, make_solver
from video_service.weights.load import LoadedModel

PROMPT, NEGATIVE, SEED, FRAMES, SIDE = "A  cat &amp; a dog,\nslow zoom in", "blurred, static", 11, 9, 64
CASES = [("euler", 1.0, 4), ("euler", 3.0, 3), ("unipc", 1.0, 4), ("unipc", 3.0, 3)]


def reference(pipeline: Any, sampler: Sampler, **call: Any) -> tuple[torch.Tensor, np.ndarray]:
    """Latents, and frames as floats in [0, 1], of a diffusers pipeline."""
    if sampler == "euler":
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    else:
        pipeline.scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
    pipeline.set_progress_bar_config(disable=True)
    call |= {"prompt": PROMPT, "negative_prompt": NEGATIVE, "height": SIDE, "width": SIDE, "num_frames": FRAMES}
    latents: list[torch.Tensor] = []

    def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents.append(tensors["latents"])
        return tensors

    generator = torch.Generator("cpu").manual_seed(SEED)
    frames = pipeline(**call, generator=generator, output_type="np", callback_on_step_end=keep).frames[0]
    return latents[-1], frames


@torch.inference_mode()
def ours(
    model: LoadedModel, sampler: Sampler, steps: int, guidance_scale: float, picture: Image.Image | None
) -> tuple[torch.Tensor, np.ndarray]:
    """Latents, and uint8 frames, of the stages that `generate` runs."""
    text = encode_text(model, PROMPT, NEGATIVE if guidance_scale > 1 else None)
    condition = None if picture is None else encode_condition(model, picture_tensor(picture), FRAMES)
    generator = torch.Generator("cpu").manual_seed(SEED)
    scale = model.vae.config["scale_factor_spatial"]
    noise = draw_noise((1, 16, (FRAMES - 1) // 4 + 1, SIDE // scale, SIDE // scale), generator)
    sampling = Sampling(sampler=sampler, steps=steps, guidance_scale=guidance_scale)
    solver = make_solver(sampling, shift=3.0, has_picture=picture is not None, generator=generator)
    latents = denoise(model, text, condition, solver, noise, guidance_scale, silent)
    return latents, np.concatenate(list(decode_frames(model, latents)))


def assert_same(mine: tuple[torch.Tensor, np.ndarray], theirs: tuple[torch.Tensor, np.ndarray]) -> None:
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-4, atol=1e-4)
    assert mine[1].shape == theirs[1].shape == (FRAMES, SIDE, SIDE, 3)
    # In levels of 255: half a level is the rounding to uint8.
    assert np.abs(mine[1] - theirs[1] * 255.0).max() < 0.51


@pytest.mark.parametrize(("sampler", "guidance_scale", "steps"), CASES)
def test_picture_to_video_equals_the_diffusers_pipeline(
    tiny_folder: Path, tiny_model: LoadedModel, picture: Image.Image, sampler: Sampler, guidance_scale: float,
    steps: int,
) -> None:
    """36 channels: mask, latents of [picture, zeros] and noise give WanImageToVideoPipeline's frames."""
    pipeline = WanImageToVideoPipeline.from_pretrained(tiny_folder)
    theirs = reference(
        pipeline, sampler, image=picture, num_inference_steps=steps, guidance_scale=guidance_scale,
        max_sequence_length=16,
    )
    assert_same(ours(tiny_model, sampler, steps, guidance_scale, picture), theirs)


@pytest.mark.parametrize(("sampler", "guidance_scale", "steps"), CASES)
def test_words_to_video_equals_the_diffusers_pipeline(
    wan_t2v_folder: Path, sampler: Sampler, guidance_scale: float, steps: int
) -> None:
    """16 channels and the 8x VAE of Wan2.1 give WanPipeline's frames."""
    pipeline = WanPipeline.from_pretrained(wan_t2v_folder)
    theirs = reference(pipeline, sampler, num_inference_steps=steps, guidance_scale=guidance_scale)
    assert_same(ours(load_tiny(wan_t2v_folder), sampler, steps, guidance_scale, None), theirs)


@pytest.mark.parametrize("text", ["A &lt;b&gt;  cat\n", "caf&amp;eacute; â€œquotedâ€\x9d", "  一只 猫 ", "ﬁne…"])
def test_prompts_are_cleaned_as_wan_cleans_them(text: str) -> None:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert clean_prompt(text) == prompt_clean(text)


@pytest.mark.parametrize("scale", [4, 8])
@torch.inference_mode()
def test_frames_do_not_depend_on_the_decode_chunk(tiny_model: LoadedModel, wan_t2v_folder: Path, scale: int) -> None:
    """The causal history makes any chunk length equal `vae.decode` of the whole clip."""
    model = tiny_model if scale == 4 else load_tiny(wan_t2v_folder)
    latents = torch.randn(1, 16, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    vae: AutoencoderKLWan = model.vae
    mean, std = (torch.tensor(vae.config[name]).view(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    whole = vae.decode(latents * std + mean, return_dict=False)[0][0]
    expected = ((whole + 1) * 127.5).permute(1, 2, 3, 0).numpy()
    for chunk in (1, 2, 5):
        pieces = list(decode_frames(model, latents, chunk))
        assert [len(piece) for piece in pieces] == [1, *[4 * n for n in {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[chunk]]]
        assert np.abs(np.concatenate(pieces) - expected).max() < 0.51
