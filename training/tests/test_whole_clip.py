"""The VAE's whole-clip pass, which training uses, is the chunked pass that rendering uses."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d, WanResample

from training.video.whole_clip import decode, enable_whole_clip, encode


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_a_whole_clip_pass_gives_what_the_chunked_pass_gives(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=16, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()
    video = torch.rand(1, 3, frames, 16, 24) * 2 - 1
    with torch.no_grad():
        moments = vae.encode(video).latent_dist.parameters  # type: ignore[union-attr]  # diffusers types it as a union
        rendered = vae.decode(moments[:, :4]).sample  # type: ignore[union-attr]
        monkeypatch.setattr(WanResample, "forward", WanResample.forward)  # put back after the test
        monkeypatch.setattr(WanCausalConv3d, "forward", WanCausalConv3d.forward)
        enable_whole_clip()
        torch.testing.assert_close(encode(vae, video), moments, rtol=0, atol=2e-5)
        torch.testing.assert_close(decode(vae, moments[:, :4]).clamp(-1, 1), rendered, rtol=0, atol=2e-5)
    assert rendered.shape == video.shape
