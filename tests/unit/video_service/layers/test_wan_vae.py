"""The decoder with its history in the open gives diffusers' frames."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from video_service.layers.frames import to_bytes, to_yuv420
from video_service.layers.wan.vae import WanVaeDecoder

KINDS: dict[str, dict[str, Any]] = {
    "wan2.1": {},
    "4x": {"dim_mult": [1, 2, 4], "temperal_downsample": [True, True], "scale_factor_spatial": 4},
    "wan2.2-5b": {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "decoder_base_dim": 16},
}


def vae_of(kind: str) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=1, **KINDS[kind])
    return vae.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_diffusers_to_the_bit(kind: str) -> None:
    vae, latents = vae_of(kind), torch.randn(1, 16, 4, 4, 6)
    frames = torch.cat(list(WanVaeDecoder(vae).decode(latents)), dim=2)
    assert torch.equal(frames.clamp(-1, 1), vae.decode(latents, return_dict=False)[0])


def test_every_later_frame_takes_and_leaves_history_of_one_shape() -> None:
    decoder, latents = WanVaeDecoder(vae_of("wan2.1")), torch.randn(1, 16, 3, 4, 6)
    _, *history = decoder(latents[:, :, :1])
    _, *after = decoder(latents[:, :, 1:2], *history)
    assert [x.shape for x in history] == [x.shape for x in after]
    assert {x.shape[2] for x in history} == {2}


def test_bytes_round_and_clamp() -> None:
    assert to_bytes(torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])).tolist() == [0, 0, 128, 191, 255, 255]


def test_yuv_is_what_the_writer_makes_of_rgb() -> None:
    """Within 2 levels of FFmpeg's own conversion on smooth pictures (it interpolates chroma a little otherwise)."""
    from video_service.media.mp4 import to_yuv

    across, down = torch.meshgrid(torch.linspace(0, 255, 64), torch.linspace(0, 255, 48), indexing="xy")
    picture = torch.stack([across, down, 255 - across], dim=-1).to(torch.uint8)
    theirs = to_yuv(picture.numpy()).to_ndarray()
    ours = to_yuv420(picture[None])[0]
    assert ours.shape == theirs.shape == (72, 64)
    assert (ours.int() - torch.from_numpy(theirs).int()).abs().max() <= 2

