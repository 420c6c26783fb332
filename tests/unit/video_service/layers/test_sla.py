"""Sparse-linear attention: against a dense masked form, and against TurboDiffusion's own numbers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from video_service.layers.attention.sla import (
    KEY_BLOCK,
    QUERY_BLOCK,
    SparseLinearAttention,
    attend_to_blocks,
    choose_blocks,
    kept_blocks,
    linear_attention,
)

DATA = Path(__file__).parents[3] / "data" / "turbodiffusion_layers.safetensors"


def away(found: torch.Tensor, reference: torch.Tensor) -> float:
    return float((found.float() - reference.float()).norm() / reference.float().norm())


def normal(batch: int, length: int) -> list[torch.Tensor]:
    return list(torch.randn(3, batch, length, 2, 32))


@pytest.mark.parametrize(("batch", "length", "topk"), [(1, 256, 0.5), (2, 300, 0.4), (1, 50, 0.1), (1, 513, 0.3)])
def test_chosen_blocks_are_attended_to_as_if_the_rest_were_masked(batch: int, length: int, topk: float) -> None:
    torch.manual_seed(length)
    q, k, v = normal(batch, length)
    chosen = choose_blocks(q, k, topk)
    kept = torch.zeros(*chosen.shape[:3], -(-length // KEY_BLOCK), dtype=torch.bool).scatter_(3, chosen, True)
    mask = kept.repeat_interleave(QUERY_BLOCK, 2)[:, :, :length].repeat_interleave(KEY_BLOCK, 3)[..., :length]
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*heads_first, attn_mask=mask).transpose(1, 2)
    assert away(attend_to_blocks(q, k, v, chosen), expected) < 1e-5


def test_keeping_all_blocks_is_dense_attention() -> None:
    q, k, v = normal(1, 300)
    dense = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
    assert away(SparseLinearAttention(1.0, None, None)(q, k, v), dense) < 1e-5


def test_480p_keeps_51_of_512_blocks() -> None:
    assert kept_blocks(21 * 30 * 52, 0.1) == 51
    assert kept_blocks(10, 0.1) == 1


def test_the_linear_branch_weighs_values_by_products_of_softmaxes() -> None:
    q, k, v = normal(1, 70)
    weights = torch.einsum("blhd,bmhd->bhlm", q.softmax(-1), k.softmax(-1))
    expected = torch.einsum("bhlm,bmhd->blhd", weights / (weights.sum(-1, keepdim=True) + 1e-5), v)
    assert away(linear_attention(q, k, v), expected) < 1e-5


def test_it_is_turbodiffusion_s() -> None:
    """Their kernel in bfloat16 on an H200 at 1,000 tokens, so the last blocks are not full: 0.3 % is its rounding."""
    theirs = {key.removeprefix("d64_k30."): x for key, x in load_file(DATA).items() if key.startswith("d64_k30.")}
    q, k, v = theirs["q"], theirs["k"], theirs["v"]
    chosen = choose_blocks(q, k, 0.3)
    assert torch.equal(torch.zeros_like(theirs["blocks"]).scatter_(3, chosen, 1), theirs["blocks"])
    layer = SparseLinearAttention(0.3, theirs["proj_weight"], theirs["proj_bias"])
    assert away(layer(q.float(), k.float(), v.float()), theirs["out"]) < 4e-3
    without = SparseLinearAttention(0.3, None, None)
    assert away(without(q.float(), k.float(), v.float()), theirs["out"]) > 0.1
