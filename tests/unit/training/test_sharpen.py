"""The decoder is sharpened alone."""

from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample

from training.models import new_vae
from training.sharpen import Sharpener, grain
from training.whole_clip import enable_whole_clip

CLIP = (2, 3, 5, 32, 32)  # frames of noise


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_encoder_and_so_the_latents_stay_as_they_are_with_and_without_the_discriminator(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    for patched in (WanResample, WanCausalConv3d):
        monkeypatch.setattr(patched, "forward", patched.forward)  # put back after the test
    enable_whole_clip()
    torch.manual_seed(0)
    vae = new_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    sharpener = Sharpener(vae, Namespace(
        device="cpu", compile=False, lr=1e-3, grain=0.3, adversary=0.5, alone=0.15, noise=0.1))
    opponent = [value.clone() for value in sharpener.opponent.parameters()]
    sharpener.step(torch.rand(CLIP) * 2 - 1, share)
    changed = {name.split(".")[0] for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert any(not torch.equal(a, b) for a, b in zip(sharpener.opponent.parameters(), opponent, strict=True))


def test_a_blurred_frame_has_less_grain_and_a_flat_one_none() -> None:
    video = torch.rand(CLIP)
    blurred = F.avg_pool3d(video, (1, 3, 3), 1, (0, 1, 1))
    assert float(grain(blurred).mean()) < 0.5 * float(grain(video).mean())
    assert float(grain(torch.full(CLIP, 0.5)).max()) < 0.01
