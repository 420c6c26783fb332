"""UMT5's encoder without a text's padding, beside transformers' own."""

from typing import Any

import pytest
import torch
from transformers import UMT5Config, UMT5EncoderModel

from video_service.layers.umt5_graph import FastTextEncoder

PADDED = 300


@pytest.fixture(scope="module")
def encoder() -> UMT5EncoderModel:
    torch.manual_seed(5)
    config = UMT5Config(vocab_size=258, d_model=32, d_kv=16, d_ff=64, num_layers=3, num_heads=2)
    return UMT5EncoderModel(config).eval().requires_grad_(False)


def text(tokens: int, *, padding: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(2, 258, (1, PADDED), generator=torch.Generator().manual_seed(tokens))
    mask = (torch.arange(PADDED) < tokens).long()[None]
    mask = mask if padding == "right" else mask.flip(1)
    return ids * mask, mask


@pytest.mark.parametrize("tokens", [1, 128, 129, 256, 257, 300])
def test_a_text_s_states_are_those_beside_its_padding(encoder: UMT5EncoderModel, tokens: int) -> None:
    given = text(tokens)
    found: Any = FastTextEncoder(encoder)(*given)
    reference = encoder(*given).last_hidden_state
    assert found.last_hidden_state.shape == reference.shape
    torch.testing.assert_close(found.last_hidden_state[:, :tokens], reference[:, :tokens], rtol=1e-4, atol=1e-5)


def test_what_is_padded_elsewhere_goes_the_plain_way(encoder: UMT5EncoderModel) -> None:
    given = text(40, padding="left")
    assert torch.equal(FastTextEncoder(encoder)(*given).last_hidden_state, encoder(*given).last_hidden_state)
