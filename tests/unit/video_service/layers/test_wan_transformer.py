"""The fast transformer gives diffusers' numbers."""

from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from video_service.layers.attention.sla import Sla
from video_service.layers.wan.transformer import FastWanTransformer

TIMESTEPS = [988.0, 500.0, 3.0]
IMAGE: dict[str, Any] = {"image_dim": 24, "added_kv_proj_dim": 64}


def away(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found.float() - reference.float()).norm() / reference.float().norm())


def transformer_of(**more: Any) -> WanTransformer3DModel:
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=32, text_dim=32, freq_dim=32, ffn_dim=96, num_layers=2, **more).eval()
    for parameter in transformer.parameters():
        parameter.data.normal_(0, 0.2)
    return transformer.requires_grad_(False)


def inputs(picture: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Latents of a batch of two, text, and CLIP's tokens (diffusers then takes 512 of the text)."""
    torch.manual_seed(1)
    text = torch.randn(2, 512 if picture else 12, 32)
    return torch.randn(2, 16, 3, 12, 20), text, torch.randn(2, 7, 24) if picture else None


@pytest.mark.parametrize("more", [{}, IMAGE, {"patch_size": (1, 4, 4)}], ids=["t2v", "clip", "patch-4"])
def test_each_step_is_diffusers(more: dict[str, Any]) -> None:
    transformer = transformer_of(**more)
    latents, text, picture = inputs("image_dim" in more)
    expected = [
        transformer(latents, torch.tensor([at, at]), text, picture, return_dict=False)[0] for at in TIMESTEPS
    ]
    fast = FastWanTransformer(transformer)
    steps = fast.graphed(fast.begin(latents.shape, text, TIMESTEPS, picture))
    for index, reference in enumerate(expected):
        assert away(steps(latents, index), reference) < 1e-5
    again = transformer(latents, torch.tensor([500.0, 500.0]), text, picture, return_dict=False)[0]
    assert away(again, expected[1]) < 1e-6  # what it was made of still works


def test_a_clip_can_follow_another() -> None:
    transformer = transformer_of()
    latents, text, _ = inputs(picture=False)
    fast = FastWanTransformer(transformer)
    steps = fast.graphed(fast.begin(latents.shape, text, TIMESTEPS))
    before = steps(latents, 1)
    steps.restart(fast.begin(latents.shape, 2 * text, TIMESTEPS))
    expected = transformer(latents, torch.tensor([500.0, 500.0]), 2 * text, return_dict=False)[0]
    assert away(steps(latents, 1), expected) < 1e-5 < away(before, expected)
    with pytest.raises(ValueError, match="does not take"):
        steps.restart(fast.begin(latents[:, :, :2].shape, text, TIMESTEPS))


def test_sparse_attention_over_all_blocks_is_dense() -> None:
    transformer = transformer_of()
    latents, text, _ = inputs(picture=False)
    forms = (None, Sla(topk=1.0), Sla(topk=0.3))
    dense, all_blocks, few = (FastWanTransformer(transformer, sparse=form) for form in forms)
    clip = dense.begin(latents.shape, text, TIMESTEPS)
    expected = dense.graphed(clip)(latents, 0)
    assert away(all_blocks.graphed(clip)(latents, 0), expected) < 1e-5
    assert away(few.graphed(clip)(latents, 0), expected) > 1e-3


def test_float8_goes_with_bfloat16() -> None:
    transformer = transformer_of()
    with pytest.raises(ValueError, match="bfloat16"):
        FastWanTransformer(transformer, fp8=True)
    latents, text, _ = (None if x is None else x.bfloat16() for x in inputs(picture=False))
    assert latents is not None
    assert text is not None
    transformer = transformer.bfloat16()
    for key, parameter in transformer.named_parameters():
        if any(word in key for word in transformer._keep_in_fp32_modules or ()):
            parameter.data = parameter.data.float()
    plain, quick = FastWanTransformer(transformer), FastWanTransformer(transformer, fp8=True)
    clip = plain.begin(latents.shape, text, TIMESTEPS)
    assert 1e-3 < away(quick.graphed(clip)(latents, 0), plain.graphed(clip)(latents, 0)) < 0.15


def test_other_norms_are_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="norms"):
        FastWanTransformer(transformer_of(cross_attn_norm=False))
