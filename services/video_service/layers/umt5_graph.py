"""UMT5's encoder with its relative position bias baked for one length."""

from typing import Any

import torch
from torch import nn
from transformers import UMT5EncoderModel

from engines.export.copies import rms_norm

_MASKED = -1e4  # far below any score, and within float16


class TextEncoder(nn.Module):
    """ids and mask int64 [1, L] to states [1, L, d_model]; states of masked tokens mean nothing.

    The sum that runs past every layer, the scores and their softmax are float32: T5 leaves float16's range there.
    """

    def __init__(self, encoder: UMT5EncoderModel, tokens: int) -> None:
        super().__init__()
        self.stack: Any = encoder.encoder
        with torch.inference_mode():
            for index, block in enumerate(self.stack.block):
                bias = block.layer[0].SelfAttention.compute_bias(tokens, tokens).float()
                self.register_buffer(f"bias_{index}", bias.clone())

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.stack.embed_tokens(ids).float()
        masked_B11L = (1.0 - mask.float())[:, None, None, :] * _MASKED
        for index, block in enumerate(self.stack.block):
            attention, feed_forward = block.layer[0], block.layer[-1]
            bias = self.get_buffer(f"bias_{index}") + masked_B11L
            x = x + _attend(attention.SelfAttention, rms_norm(attention.layer_norm, x), bias).float()
            x = x + feed_forward.DenseReluDense(rms_norm(feed_forward.layer_norm, x)).float()
        return rms_norm(self.stack.final_layer_norm, x)


def _attend(attention: Any, x_BLC: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    heads, size = attention.n_heads, attention.key_value_proj_dim
    query, key, value = (
        project(x_BLC).unflatten(2, (heads, size)).transpose(1, 2)
        for project in (attention.q, attention.k, attention.v)
    )
    weights = torch.softmax(query.float() @ key.float().transpose(2, 3) + bias, dim=-1).to(value.dtype)
    return attention.o((weights @ value).transpose(1, 2).flatten(2))
