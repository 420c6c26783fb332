"""The Wan transformer with its rotary tables baked for one shape."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel
from torch import nn

from engines.export.copies import with_shared_weights


class BakedTransformer(nn.Module):
    """latents [1, C, t, h, w], timestep [1] float32, text [1, L, text_dim] to the velocity [1, out, t, h, w].

    With a timestep [1, t] each latent frame has its own time (Wan2.2 TI2V). Shares the weights of `transformer`, which
    stays as it is. Float32 whatever the weights: norms, modulation, gates, the timestep's embedding, the rotation.
    """

    def __init__(self, transformer: WanTransformer3DModel, latents_BCTHW: torch.Tensor) -> None:
        super().__init__()
        cos, sin = transformer.rope(latents_BCTHW)
        self.body: Any = with_shared_weights(transformer)
        # The tables hold every angle twice; half of each is enough.
        self.body.rope = RotaryTable(cos[..., 0::2].contiguous(), sin[..., 1::2].contiguous())
        attentions: list[Any] = [module for module in self.body.modules() if isinstance(module, WanAttention)]
        for attention in attentions:
            attention.processor = attend

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        if timestep.ndim == 2:
            tokens = self.body.rope.cos.shape[1] // timestep.shape[1]
            timestep = timestep[:, :, None].expand(-1, -1, tokens).flatten(1)
        return self.body(latents, timestep, text, return_dict=False)[0]


class RotaryTable(nn.Module):
    """cos and sin [1, tokens, 1, head_dim / 2] of one shape, as float32 constants."""

    def __init__(self, cos: torch.Tensor, sin: torch.Tensor) -> None:
        super().__init__()
        self.cos = nn.Buffer(cos.float())
        self.sin = nn.Buffer(sin.float())

    def forward(self, latents_BCTHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cos, self.sin


def attend(
    attn: WanAttention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None, rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """diffusers' WanAttnProcessor, without its writes into slices; its image branch (CLIP) is not covered.

    Raises `NotImplementedError` for a checkpoint with that branch.
    """
    if attn.add_k_proj is not None:
        raise NotImplementedError("a Wan transformer with a CLIP branch cannot be exported yet")
    source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
    key = attn.norm_k(attn.to_k(source)).unflatten(2, (attn.heads, -1))
    value = attn.to_v(source).unflatten(2, (attn.heads, -1))
    if rotary_emb is not None:
        query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    out = F.scaled_dot_product_attention(query, key, value, attention_mask)
    return attn.to_out[0](out.transpose(1, 2).flatten(2))


def rotate(x_BNHD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring channels as pairs, in float32."""
    even, odd = x_BNHD.float().unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return pairs.flatten(-2).to(x_BNHD.dtype)
