"""Skipping the repeated tail of [picture, zeros...] gives what encoding the whole clip gives."""

import copy

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from video_service.conditioning import encode_still
from video_service.vae_layers import make_lean

VAES = {
    "embedded, 4x": {"dim_mult": [1, 2, 4], "temperal_downsample": [True, True], "num_res_blocks": 1},
    "Wan2.1, 8x": {"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True], "num_res_blocks": 2},
}


def make_vae(name: str) -> AutoencoderKLWan:
    torch.manual_seed(1)
    return AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4, **VAES[name]).eval()


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("num_frames", [1, 5, 9, 33, 81])
@torch.inference_mode()
def test_a_picture_and_zeros_encode_as_the_whole_clip_does(name: str, num_frames: int) -> None:
    """In float64 the two agree to 1e-12 of a latent's size (measured: 2e-15), so no frame that matters was left out."""
    vae = make_vae(name).double()
    picture = torch.randn(1, 3, 1, 16, 16, dtype=torch.float64)
    clip = torch.cat([picture, torch.zeros(1, 3, num_frames - 1, 16, 16, dtype=torch.float64)], dim=2)
    whole = vae.encode(clip).latent_dist.mode()
    spared = encode_still(vae, picture, num_frames)
    torch.testing.assert_close(spared, whole, rtol=0.0, atol=1e-12 * whole.abs().max().item())


@pytest.mark.parametrize("name", VAES)
@torch.inference_mode()
def test_the_largest_frames_are_computed_once_the_picture_has_passed(name: str) -> None:
    """At full size no more frames are convolved than the first layers can remember, however long the clip."""
    vae = make_vae(name)
    frames = []
    last_at_full_size = max(i for i, layer in enumerate(vae.encoder.down_blocks) if i < vae.config["num_res_blocks"])
    vae.encoder.down_blocks[last_at_full_size].register_forward_pre_hook(lambda _, args: frames.append(args[0].shape[2]))
    encode_still(vae, torch.randn(1, 3, 1, 16, 16), 81)
    assert frames == [2 + 2 + 4 * vae.config["num_res_blocks"]]


@pytest.mark.parametrize("name", VAES)
@torch.inference_mode()
def test_lean_layers_compute_what_the_library_computes(name: str) -> None:
    """Encode and decode of a clip agree with the untouched VAE to float64 rounding."""
    vae = make_vae(name).double()
    lean = make_lean(copy.deepcopy(vae))
    clip = torch.rand(1, 3, 9, 32, 32, dtype=torch.float64) * 2 - 1
    latents = vae.encode(clip).latent_dist.mode()
    torch.testing.assert_close(lean.encode(clip).latent_dist.mode(), latents, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(lean.decode(latents).sample, vae.decode(latents).sample, rtol=1e-11, atol=1e-11)
    assert set(lean.state_dict()) == set(vae.state_dict())


@torch.inference_mode()
def test_in_bfloat16_the_lean_layers_are_no_further_from_the_truth() -> None:
    """Against float64, the lean decoder's error in bfloat16 is at most that of the library's."""
    vae = make_vae("embedded, 4x")
    latents = torch.randn(1, 4, 3, 16, 16).bfloat16()
    truth = copy.deepcopy(vae).bfloat16().double().decode(latents.double()).sample
    library = copy.deepcopy(vae).bfloat16().decode(latents).sample.double()
    lean = make_lean(copy.deepcopy(vae).bfloat16()).decode(latents).sample.double()
    assert (lean - truth).norm() <= 1.1 * (library - truth).norm()
