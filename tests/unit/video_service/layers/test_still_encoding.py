"""Skipping the repeated tail of [picture, zeros...] gives what encoding the whole clip gives."""

import copy

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from video_service.layers.wan.codec import encode_still
from video_service.layers.wan.lean_vae import make_lean

VAES = {
    "embedded, 4x": {"dim_mult": [1, 2, 4], "temperal_downsample": [True, True], "num_res_blocks": 1},
    "Wan2.1, 8x": {"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True], "num_res_blocks": 2},
}


def make_vae(name: str) -> AutoencoderKLWan:
    torch.manual_seed(1)
    return AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **VAES[name]).eval()


def encode(vae: AutoencoderKLWan, clip: torch.Tensor) -> torch.Tensor:
    return vae.encode(clip, return_dict=False)[0].mode()


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(latents, return_dict=False)[0]


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("num_frames", [1, 5, 9, 33, 81])
@torch.inference_mode()
def test_a_picture_and_zeros_encode_as_the_whole_clip_does(name: str, num_frames: int) -> None:
    """In float64 the two agree to 1e-12 of a latent's size (measured: 2e-15), so no frame that matters was left out."""
    vae = make_vae(name).double()
    picture = torch.randn(1, 3, 1, 16, 16, dtype=torch.float64)
    clip = torch.cat([picture, torch.zeros(1, 3, num_frames - 1, 16, 16, dtype=torch.float64)], dim=2)
    whole = encode(vae, clip)
    spared = encode_still(vae, picture, num_frames)
    torch.testing.assert_close(spared, whole, rtol=0.0, atol=1e-12 * whole.abs().max().item())


@pytest.mark.parametrize("name", VAES)
@torch.inference_mode()
def test_the_largest_frames_are_computed_once_the_picture_has_passed(name: str) -> None:
    """At full size no more frames are convolved than the first layers can remember, however long the clip."""
    vae = make_vae(name)
    num_blocks = vae.config["num_res_blocks"]
    frames: list[int] = []
    vae.encoder.down_blocks[num_blocks - 1].register_forward_pre_hook(lambda _, args: frames.append(args[0].shape[2]))
    encode_still(vae, torch.randn(1, 3, 1, 16, 16), 81)
    # The picture and one zero frame, 2 more for the first convolution, 4 for each block.
    assert frames == [2 + 2 + 4 * num_blocks]


@pytest.mark.parametrize("name", VAES)
@torch.inference_mode()
def test_lean_layers_compute_what_the_library_computes(name: str) -> None:
    """Encode and decode of a clip agree with the untouched VAE to rounding."""
    vae = make_vae(name).double()
    lean = make_lean(copy.deepcopy(vae))
    clip = torch.rand(1, 3, 9, 32, 32, dtype=torch.float64) * 2 - 1
    latents = encode(vae, clip)
    torch.testing.assert_close(encode(lean, clip), latents, rtol=1e-11, atol=1e-11)
    # The library's upsampling passes through float32, even in float64.
    torch.testing.assert_close(decode(lean, latents), decode(vae, latents), rtol=1e-5, atol=1e-6)
    assert set(lean.state_dict()) == set(vae.state_dict())


@torch.inference_mode()
def test_in_bfloat16_the_lean_layers_are_no_further_from_the_truth() -> None:
    """Against float64, the lean decoder's error in bfloat16 is at most that of the library's."""
    vae = make_vae("embedded, 4x")
    latents = torch.randn(1, 4, 3, 16, 16).bfloat16()
    truth = decode(copy.deepcopy(vae).bfloat16().double(), latents.double())
    library = decode(copy.deepcopy(vae).bfloat16(), latents).double()
    lean = decode(make_lean(copy.deepcopy(vae).bfloat16()), latents).double()
    assert (lean - truth).norm() <= 1.1 * (library - truth).norm()
