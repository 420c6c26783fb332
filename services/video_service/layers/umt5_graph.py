"""UMT5's encoder with its relative position bias baked for one length, as engines have it and as CUDA graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import UMT5EncoderModel

from engines.export.copies import rms_norm
from video_service.layers.graphs import Graphed
from video_service.layers.umt5 import TextStates

_LENGTHS = (128, 256)  # tokens; UMT5-XXL's bias for both takes 0.5 GB, for 512 alone 1.6
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


class FastTextEncoder:
    """Called as `module`, transformers' encoder: short texts without padding, on CUDA by a graph.

    Longer ones it encodes itself. Past a short text's end the states are zeros.
    """

    def __init__(self, module: UMT5EncoderModel) -> None:
        self.module = module
        self._forms: dict[int, tuple[TextEncoder, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {}
        """With what each runs: a graph reads its numbers where they lie."""

    @torch.no_grad()
    def __call__(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> Any:
        tokens, longest = int(mask_BL.sum()), ids_BL.shape[1]
        length = next((length for length in _LENGTHS if tokens <= length < longest), None)
        if length is None or len(ids_BL) > 1 or not bool(mask_BL[0, :tokens].all()):
            return self.module(ids_BL, mask_BL)
        given = ids_BL[:, :length], mask_BL[:, :length]
        if length not in self._forms:
            form = TextEncoder(self.module, length)
            self._forms[length] = form, Graphed(form, given) if ids_BL.is_cuda else form
        states = self._forms[length][1](*given)
        whole = states.new_zeros(1, longest, states.shape[2])
        whole[:, :tokens] = states[:, :tokens]
        return TextStates(whole)


def _attend(attention: Any, x_BLC: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    heads, size = attention.n_heads, attention.key_value_proj_dim
    query, key, value = (
        project(x_BLC).unflatten(2, (heads, size)).transpose(1, 2)
        for project in (attention.q, attention.k, attention.v)
    )
    weights = torch.softmax(query.float() @ key.float().transpose(2, 3) + bias, dim=-1).to(value.dtype)
    return attention.o((weights @ value).transpose(1, 2).flatten(2))
