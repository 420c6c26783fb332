"""Qwen's language model over a cache of fixed size: prompts are read at once, then one token of each row a step.

Over the weights of transformers' Qwen2-VL, Qwen2.5-VL or Qwen3-VL: projections over one input are joined, and the
model's own layers become views of them, so nothing is stored twice and transformers' `generate` goes on working.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from vl_service.qwen.fast.float8 import Float8

_FEW = 2  # rows of a step that our own products are fastest for


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer's weights; of a step in eight bits, `Float8`."""

    norm: torch.Tensor
    qkv: Any
    qkv_bias: torch.Tensor | None
    head_norms: tuple[torch.Tensor, torch.Tensor] | None
    """Of queries and keys (Qwen3)."""
    out: Any
    second_norm: torch.Tensor
    gate_up: Any
    down: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Keys (rotated) and values [layers, rows, KV, length, D]."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Tokens to read into one row of a cache, after `start` others that it has, or `donor` has, another row."""

    x: torch.Tensor
    """Embeddings [L, C]."""
    positions: torch.Tensor
    """int64 [3, 1, L]."""
    row: int
    start: int
    donor: int | None
    pictured: torch.Tensor
    """bool [L]."""
    deepstack: tuple[torch.Tensor, ...] = ()
    """Qwen3-VL's features for the first layers' outputs, at the places that `pictured` marks."""


class Network:
    """The decoder of `model` (a ...ForConditionalGeneration)."""

    def __init__(self, model: Any, length: int, *, fp8: bool = False) -> None:
        """For positions below `length`. `fp8`: a step of few rows reads weights in eight bits, on CUDA alone."""
        language: Any = model.model.language_model
        config = language.config
        self.layers = [_layer(layer) for layer in language.layers]
        self.embedding: torch.Tensor = language.embed_tokens.weight
        self.head: torch.Tensor = model.lm_head.weight
        self.norm: torch.Tensor = language.norm.weight
        self.eps: float = config.rms_norm_eps
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.length = length
        self._step_layers, self._step_head = self.layers, self.head
        if fp8:
            self._step_layers = [
                replace(layer, qkv=Float8.of(layer.qkv), out=Float8.of(layer.out), gate_up=Float8.of(layer.gate_up),
                        down=Float8.of(layer.down)) for layer in self.layers]
            self._step_head = Float8.of(self.head)
        self._rotary = language.rotary_emb
        # Text has one position on all three axes, so a table serves every step.
        self.cos, self.sin = self.rotary(torch.arange(length, device=self.embedding.device).expand(3, 1, -1))

    def rotary(self, positions_3BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin float32 [L, D / 2]; each serves channel i and i + D / 2."""
        cos, sin = self._rotary(torch.empty(0, device=positions_3BL.device), positions_3BL)
        half = self.dim // 2
        return cos[0, :, :half].float().contiguous(), sin[0, :, :half].float().contiguous()

    def new_cache(self, rows: int) -> Cache:
        shape = (len(self.layers), rows, self.kv_heads, self.length, self.dim)
        keys, values = self.embedding.new_zeros(2, *shape)
        return Cache(keys=keys, values=values)

    def read(self, parts: Sequence[Part], cache: Cache) -> None:
        """Read all parts at once, in their order: a part may begin with what an earlier one reads."""
        x = torch.cat([part.x for part in parts])
        cos, sin = self.rotary(torch.cat([part.positions for part in parts], dim=2))
        stacks = _stacked(parts)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            q, k, v = self._heads(layer, F.linear(self._normed(x, layer.norm), layer.qkv, layer.qkv_bias), cos, sin)
            out = self._attended(parts, q, k, v, cache.keys[index], cache.values[index])
            if index == last:
                return  # what comes of it is a matter of the last token, which is a step's
            x = x + F.linear(out, layer.out)
            x = x + self._feed_forward(layer, x)
            if index < len(stacks):
                where, level = stacks[index]
                x = x.index_add(0, where, level.to(x.dtype))

    def _attended(
        self, parts: Sequence[Part], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """[all tokens, C], and one layer's cache filled."""
        outs: list[torch.Tensor] = []
        sizes = [len(part.x) for part in parts]
        for part, own_q, own_k, own_v in zip(parts, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
            start, end = part.start, part.start + len(part.x)
            row_keys, row_values = keys[part.row], values[part.row]
            if part.donor is not None:
                row_keys[:, :start], row_values[:, :start] = keys[part.donor, :, :start], values[part.donor, :, :start]
            row_keys[:, start:end], row_values[:, start:end] = own_k.transpose(0, 1), own_v.transpose(0, 1)
            if start == end:  # all but the last token is known
                outs.append(own_q.flatten(1))
                continue
            out = _causal(own_q.transpose(0, 1)[None], row_keys[None, :, :end], row_values[None, :, :end])
            outs.append(out[0].transpose(0, 1).flatten(1))
        return torch.cat(outs)

    def step(
        self, tokens_B: torch.Tensor, position_B: torch.Tensor, turn_B: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        """Logits float32 [B, vocabulary] after one more token a row.

        Args:
            position_B: int32, where in its row's cache the token goes.
            turn_B: int32, the token's position for the rotation, which a picture makes smaller.
            cache: of B rows.
        """
        x = F.embedding(tokens_B, self.embedding)
        if x.is_cuda and x.dtype == torch.bfloat16 and len(x) <= _FEW:
            from vl_service.qwen.fast import kernels as step_kernels

            for index, layer in enumerate(self._step_layers):
                x = self._few(x, layer, index, position_B, turn_B, cache)
            return step_kernels.product(x, self._step_head, norm=self.norm, eps=self.eps, dtype=torch.float32)
        for index, layer in enumerate(self.layers):
            x = self._several(x, layer, index, position_B, turn_B, cache)
        return self.logits(self._normed(x, self.norm))

    def logits(self, normed_BC: torch.Tensor) -> torch.Tensor:
        return F.linear(normed_BC, self.head).float()

    def _few(
        self, x: torch.Tensor, layer: Layer, index: int, position: torch.Tensor, turn: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        """On CUDA: products that read weights at full speed, with norms and sums inside."""
        from vl_service.qwen.fast.kernels import attend, product

        qkv = product(x, layer.qkv, bias=layer.qkv_bias, norm=layer.norm, eps=self.eps)
        out = attend(qkv, self.cos, self.sin, position, turn, layer.head_norms, self.eps, cache.keys[index],
                     cache.values[index])
        x = product(out, layer.out, residual=x)
        hidden = product(x, layer.gate_up, norm=layer.second_norm, eps=self.eps, gated=True)
        return product(hidden, layer.down, residual=x)

    def _several(
        self, x: torch.Tensor, layer: Layer, index: int, position: torch.Tensor, turn: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        qkv = F.linear(self._normed(x, layer.norm), layer.qkv, layer.qkv_bias)
        keys, values = cache.keys[index], cache.values[index]
        if x.is_cuda and x.dtype == torch.bfloat16:
            from vl_service.qwen.fast.kernels import attend

            out = attend(qkv, self.cos, self.sin, position, turn, layer.head_norms, self.eps, keys, values)
        else:
            q, k, v = self._heads(layer, qkv, self.cos[turn], self.sin[turn])
            rows = torch.arange(len(x), device=x.device)
            keys[rows, :, position], values[rows, :, position] = k, v
            if not x.is_cuda:  # there it would wait for the device
                keys, values = (part[:, :, : int(position.max()) + 1] for part in (keys, values))
            mask = torch.arange(keys.shape[2], device=x.device) <= position[:, None]
            out = F.scaled_dot_product_attention(q[:, :, None], keys, values, mask[:, None, None], enable_gqa=True)
            out = out.flatten(1)
        x = x + F.linear(out, layer.out)
        return x + self._feed_forward(layer, x)

    def _heads(
        self, layer: Layer, qkv_LC: torch.Tensor, cos_LD: torch.Tensor, sin_LD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys (both rotated) and values [L, heads, D]."""
        turning = self.heads + self.kv_heads
        by_kernel = qkv_LC.is_cuda and qkv_LC.dtype == torch.bfloat16 and layer.head_norms is None
        if by_kernel:
            from vl_service.qwen.fast.row_kernels import rotate_halves_

            qkv_LC = rotate_halves_(qkv_LC, cos_LD, sin_LD, turning)
        q, k, v = qkv_LC.unflatten(1, (-1, self.dim)).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        if by_kernel:
            return q, k, v
        if layer.head_norms is not None:
            q, k = self._normed(q, layer.head_norms[0]), self._normed(k, layer.head_norms[1])
        return _rotate(q, cos_LD, sin_LD), _rotate(k, cos_LD, sin_LD), v

    def _feed_forward(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        hidden = F.linear(self._normed(x, layer.second_norm), layer.gate_up)
        if hidden.is_cuda and hidden.dtype == torch.bfloat16:
            from vl_service.qwen.fast.row_kernels import gated

            return F.linear(gated(hidden), layer.down)
        gate, up = hidden.chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, layer.down)

    def _normed(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.eps)


def _causal(q_1HLD: torch.Tensor, k_1KED: torch.Tensor, v_1KED: torch.Tensor) -> torch.Tensor:
    """Attention of the last L tokens of E to those before each.

    A causal bias for L < E may find no kernel for fewer heads of keys than of queries, and torch writes out all scores.
    """
    heads, length, end = q_1HLD.shape[1], q_1HLD.shape[2], k_1KED.shape[2]
    if length == end:
        return F.scaled_dot_product_attention(q_1HLD, k_1KED, v_1KED, is_causal=True, enable_gqa=True)
    bias: Any = causal_lower_right(length, end)
    k, v = (part.repeat_interleave(heads // part.shape[1], 1) for part in (k_1KED, v_1KED))
    return F.scaled_dot_product_attention(q_1HLD, k, v, attn_mask=bias)


def _rotate(x_LHD: torch.Tensor, cos_LD: torch.Tensor, sin_LD: torch.Tensor) -> torch.Tensor:
    """Rotate channel i with channel i + D / 2, in float32."""
    first, second = x_LHD.float().chunk(2, dim=-1)
    cos, sin = cos_LD[:, None], sin_LD[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_LHD.dtype)


def _stacked(parts: Sequence[Part]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each of the first layers, places among all tokens, and what is added there."""
    where = torch.cat([part.pictured for part in parts]).nonzero()[:, 0]
    levels = zip(*(part.deepstack for part in parts if part.deepstack), strict=True)
    return [(where, torch.cat(level)) for level in levels]


def _layer(layer: Any) -> Layer:
    own, mlp = layer.self_attn, layer.mlp
    qkv = [own.q_proj, own.k_proj, own.v_proj]
    return Layer(
        norm=layer.input_layernorm.weight, qkv=_joined(qkv), out=own.o_proj.weight,
        qkv_bias=None if own.q_proj.bias is None else torch.cat([part.bias for part in qkv]),
        head_norms=(own.q_norm.weight, own.k_norm.weight) if hasattr(own, "q_norm") else None,
        second_norm=layer.post_attention_layernorm.weight, gate_up=_joined([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj.weight,
    )


def _joined(parts: Sequence[Any]) -> torch.Tensor:
    """Their weights as one; each part's becomes a view of it."""
    weight = torch.cat([part.weight.data for part in parts])
    for part, own in zip(parts, weight.split([part.out_features for part in parts]), strict=True):
        part.weight.data = own
    return weight
