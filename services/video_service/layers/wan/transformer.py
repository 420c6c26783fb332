"""The Wan transformer for speed: what does not change within a clip is computed once, each row is read once an op.

    fast = FastWanTransformer(transformer, fp8=True, sparse=Sla(topk=0.1, projections=proj_l))
    clip = fast.begin(latents.shape, text, timesteps)          # timesteps: what the network is told, all steps
    step = fast.graphed(clip)                                  # on CUDA: one graph launch a step
    for index, _ in enumerate(timesteps):
        velocity = step(latents, index)                        # valid until the next call

Takes diffusers' `WanTransformer3DModel` (LoRA merged before) and computes its numbers up to rounding; `fp8` and, for
models not taught so, `sparse` are approximations. `why_not` names what this does not cover: diffusers' module stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from video_service.layers.attention.dense import dense_attention
from video_service.layers.attention.sla import Sla, SparseLinearAttention
from video_service.layers.attention.ulysses import Ulysses
from video_service.layers.attention.vsa import Tiles, VideoSparseAttention, Vsa
from video_service.layers.graphs import Graphed
from video_service.layers.linear import Fp8Linear, PlainLinear, fits_fp8, joined
from video_service.layers.rows import quantise_rows, residual_norm, rms_rotate_

Sparse = Sla | Vsa


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What stays the same over the steps of a clip."""

    shape: torch.Size
    tokens: int
    rotary: tuple[torch.Tensor, torch.Tensor]
    """cos, sin float32 [tokens, head_dim / 2]; of a rank's own tokens where they are split."""
    crossed: tuple[tuple[tuple[torch.Tensor, torch.Tensor], ...], ...]
    """For each block: keys and values [B, L, heads, head_dim] of the text, and of the picture where there is one."""
    modulation: torch.Tensor
    """float32 [steps, blocks, 6, C]: shift, 1 + scale and gate of attention, then of the feed-forward."""
    head: torch.Tensor
    """float32 [steps, 2, C]: shift and 1 + scale before the output."""
    tiles: Tiles | None = None
    """The tokens' order, that of `rotary` too, where attention goes by tiles; else they lie as in the clip."""
    split: Ulysses | None = None
    """Who else computes this clip."""


def why_not(transformer: WanTransformer3DModel) -> str | None:
    """Why this form cannot run the transformer, or None."""
    if not isinstance(transformer, WanTransformer3DModel):
        return "it is another network than Wan2.1's"
    config: Any = transformer.config
    if not config.cross_attn_norm or config.qk_norm != "rms_norm_across_heads":
        return "its norms differ from Wan2.1's"
    return None


class FastWanTransformer(nn.Module):
    """See the module's text."""

    def __init__(
        self, transformer: WanTransformer3DModel, *, fp8: bool = False, sparse: Sparse | None = None,
        split: Ulysses | None = None,
    ) -> None:
        """With `split` each rank computes its own tokens, and all of them must call.

        Raises `NotImplementedError` for what `why_not` names, `ValueError` for `fp8` with other than bfloat16.
        """
        super().__init__()
        if fp8 and transformer.proj_out.weight.dtype != torch.bfloat16:
            raise ValueError("float8 products give bfloat16: load the transformer in it")
        if reason := why_not(transformer):
            raise NotImplementedError(reason)
        config: Any = transformer.config
        self.patch_size: tuple[int, int, int] = tuple(config.patch_size)
        self.heads: int = config.num_attention_heads
        self.eps: float = config.eps
        self._plain = (transformer,)  # in a tuple, so that its weights are not ours too
        self._by_tiles = isinstance(sparse, Vsa)
        self._split = split
        self.blocks = nn.ModuleList(
            FastBlock(block, self.heads, fp8, None if sparse is None else sparse.of_block(index))
            for index, block in enumerate(transformer.blocks)
        )

    @torch.no_grad()
    def begin(
        self, shape: torch.Size, text_BLC: torch.Tensor, timesteps: Sequence[float],
        picture_BLC: torch.Tensor | None = None, *, alone: bool = False,
    ) -> Clip:
        """Everything about a clip that its latents do not change; `alone`: this rank computes all of its tokens.

        Args:
            shape: of the network's input [B, C, T, H, W].
            text_BLC: the text encoder's output.
            picture_BLC: CLIP's, of a Wan2.1 I2V model.
        """
        plain = self._plain[0]
        embed: Any = plain.condition_embedder
        modulation, head = self.modulate(timesteps, text_BLC)
        text = embed.text_embedder(text_BLC)
        picture = None if picture_BLC is None else embed.image_embedder(picture_BLC)
        cos, sin = plain.rope(torch.empty(shape, device="meta"))
        rotary = (cos[0, :, 0, 0::2].float().contiguous(), sin[0, :, 0, 1::2].float().contiguous())
        tiles = None
        tokens = len(rotary[0])
        if self._by_tiles:
            (t, h, w), (_, _, frames, height, width) = self.patch_size, shape
            tiles = Tiles.of((frames // t, height // h, width // w), text_BLC.device)
            rotary = (rotary[0][tiles.order], rotary[1][tiles.order])
        split = None if alone else self._split
        if split is not None:
            rotary = (split.own(rotary[0][None])[0], split.own(rotary[1][None])[0])
        return Clip(
            shape=shape, tokens=tokens, modulation=modulation, head=head, rotary=rotary, tiles=tiles, split=split,
            crossed=tuple(cast(FastBlock, block).crossed(text, picture) for block in self.blocks),
        )

    @torch.no_grad()
    def modulate(self, timesteps: Sequence[float], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`Clip.modulation` and `Clip.head` of these steps, on the device and in the rounding of `like`."""
        plain = self._plain[0]
        embed: Any = plain.condition_embedder
        waves = embed.timesteps_proj(torch.tensor(list(timesteps), dtype=torch.float32, device=like.device))
        times = embed.time_embedder(waves.to(next(embed.time_embedder.parameters()).dtype)).type_as(like)
        rows = embed.time_proj(embed.act_fn(times)).unflatten(1, (6, -1)).float()
        tables = torch.cat([cast(torch.Tensor, block.scale_shift_table).float() for block in plain.blocks])
        modulation = rows[:, None] + tables
        modulation[:, :, 1::3] += 1.0  # the scales
        head = plain.scale_shift_table.float() + times.float()[:, None]
        head[:, 1] += 1.0
        return modulation, head

    def forward(self, latents_BCTHW: torch.Tensor, clip: Clip, modulation: torch.Tensor, head: torch.Tensor
                ) -> torch.Tensor:
        """The velocity [B, out, T, H, W], for one step's rows of `clip.modulation` and `clip.head`."""
        x = self._patches(latents_BCTHW, clip)
        update: torch.Tensor | None = None
        gate: torch.Tensor | None = None
        for index, block in enumerate(self.blocks):
            x, update = block(x, update, gate, modulation[index], clip.crossed[index], clip)
            gate = modulation[index, 5]
        _, normed, _ = residual_norm(x, update, gate, head[1], head[0], eps=self.eps)
        out_BLC = self._plain[0].proj_out(normed).unflatten(0, (len(latents_BCTHW), -1))
        if clip.split is not None:
            out_BLC = clip.split.whole(out_BLC, clip.tokens)
        return self._unpatched(out_BLC if clip.tiles is None else out_BLC[:, clip.tiles.back], latents_BCTHW.shape)

    def graphed(self, clip: Clip) -> "ClipSteps":
        """The steps of `clip`, on CUDA as a graph; reuse it for later clips of the same shape by `restart`."""
        return ClipSteps(self, clip)

    def _patches(self, x_BCTHW: torch.Tensor, clip: Clip) -> torch.Tensor:
        """The stream [N, C]; N is batch * tokens, of this rank where they are split."""
        convolution = self._plain[0].patch_embedding
        t, h, w = self.patch_size
        x = x_BCTHW.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
        x_BLC = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)
        if clip.tiles is not None:
            x_BLC = x_BLC[:, clip.tiles.order]
        if clip.split is not None:
            x_BLC = clip.split.own(x_BLC)
        return F.linear(
            x_BLC.flatten(0, 1).to(convolution.weight.dtype), convolution.weight.flatten(1), convolution.bias)

    def _unpatched(self, x_BLC: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        (batch, _, frames, height, width), (t, h, w) = shape, self.patch_size
        x = x_BLC.reshape(batch, frames // t, height // h, width // w, t, h, w, -1)
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)


class FastBlock(nn.Module):
    """One block: stream [N, C] and the update still owed to it in, the same out."""

    def __init__(
        self, block: Any, heads: int, fp8: bool, sparse: SparseLinearAttention | VideoSparseAttention | None
    ) -> None:
        super().__init__()
        own, cross, (up, down) = block.attn1, block.attn2, (block.ffn.net[0].proj, block.ffn.net[2])
        fp8 = fp8 and all(fits_fp8(layer) for layer in (own.to_q, up, down))
        self.heads, self.eps, self.norm_eps, self.sparse = heads, block.norm1.eps, own.norm_q.eps, sparse
        gate = [block.to_gate_compress] if isinstance(sparse, VideoSparseAttention) else []
        self.qkv = joined([own.to_q, own.to_k, own.to_v, *gate], fp8=fp8)
        self.out = joined([own.to_out[0]], fp8=fp8)
        self.cross_q, self.cross_out = joined([cross.to_q], fp8=fp8), joined([cross.to_out[0]], fp8=fp8)
        self.cross_kv = joined([cross.to_k, cross.to_v], fp8=False)
        self.picture_kv = None
        if cross.add_k_proj is not None:
            self.picture_kv = joined([cross.add_k_proj, cross.add_v_proj], fp8=False)
            self.picture_norm = cross.norm_added_k
        self.up, self.down = joined([up], fp8=fp8), joined([down], fp8=fp8)
        self.norm_qk = nn.Buffer(torch.stack([own.norm_q.weight.data, own.norm_k.weight.data]))
        self.cross_norm_q = nn.Buffer(cross.norm_q.weight.data[None])
        self.cross_norm_k = cross.norm_k
        self.norm2 = nn.Buffer(torch.stack([block.norm2.weight.data, block.norm2.bias.data]).float())

    def crossed(
        self, text_BLC: torch.Tensor, picture_BLC: torch.Tensor | None
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Cross-attention's keys and values."""
        found = [self._keys_values(self.cross_kv, self.cross_norm_k, text_BLC)]
        if picture_BLC is not None:
            assert self.picture_kv is not None
            found.append(self._keys_values(self.picture_kv, self.picture_norm, picture_BLC))
        return tuple(found)

    def _keys_values(
        self, layer: PlainLinear | Fp8Linear, norm: nn.Module, source_BLC: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = layer(source_BLC).chunk(2, dim=-1)
        heads = (self.heads, -1)
        return norm(keys).unflatten(2, heads).contiguous(), values.unflatten(2, heads).contiguous()

    def forward(
        self, x_NC: torch.Tensor, update_NC: torch.Tensor | None, gate_C: torch.Tensor | None, rows_6C: torch.Tensor,
        crossed: Sequence[tuple[torch.Tensor, torch.Tensor]], clip: Clip,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shift, scale, gate, ff_shift, ff_scale, _ = rows_6C
        x, *normed = residual_norm(
            x_NC, update_NC, gate_C, scale, shift, eps=self.eps, quantise=self.qkv.quantises)
        attended = self._self_attention(normed, clip)
        x, *normed = residual_norm(
            x, attended, gate, self.norm2[0], self.norm2[1], eps=self.eps, quantise=self.cross_q.quantises)
        attended = self._cross_attention(normed, crossed)
        x, rows, scale = residual_norm(
            x, attended, None, ff_scale, ff_shift, eps=self.eps, quantise=self.up.quantises)
        if isinstance(self.up, PlainLinear):
            return x, self.down(self.up.gelu(rows))
        return x, self.down(*quantise_rows(self.up(rows, scale), gelu=True))

    def _self_attention(self, normed: list[Any], clip: Clip) -> torch.Tensor:
        rotary, tiles = clip.rotary, clip.tiles
        qkv = rms_rotate_(self.qkv(*normed), self.norm_qk, rotary, eps=self.norm_eps)
        qkv = qkv.unflatten(0, (-1, len(rotary[0]))).unflatten(2, (-1, self.heads, 2 * rotary[0].shape[1]))
        if clip.split is not None:
            qkv = clip.split.to_heads(qkv, clip.tokens)
        q, k, v, *gate = qkv.unbind(2)
        out = dense_attention(q, k, v) if self.sparse is None else self.sparse(
            q, k, v, *gate, *(() if tiles is None else (tiles,)))
        out_BLC = out.flatten(2) if clip.split is None else clip.split.to_tokens(out)
        return _project(self.out, out_BLC.flatten(0, 1))

    def _cross_attention(
        self, normed: list[Any], crossed: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        q = rms_rotate_(self.cross_q(*normed), self.cross_norm_q, None, eps=self.norm_eps)
        q = q.view(len(crossed[0][0]), -1, self.heads, crossed[0][0].shape[-1])
        out = dense_attention(q, *crossed[0]).flatten(2)
        for keys, values in crossed[1:]:
            out = out + dense_attention(q, keys, values).flatten(2)
        return _project(self.cross_out, out.flatten(0, 1))


def _project(layer: PlainLinear | Fp8Linear, x_NC: torch.Tensor) -> torch.Tensor:
    return layer(*quantise_rows(x_NC)) if layer.quantises else layer(x_NC)


class ClipSteps:
    """The network at each step of a clip. On CUDA one graph launch a step; elsewhere plain calls."""

    def __init__(self, network: FastWanTransformer, clip: Clip) -> None:
        self._network = network
        # Of its own: a graph reads it where it lies, and `restart` writes it.
        self._clip = replace(clip, crossed=tuple(
            tuple((keys.clone(), values.clone()) for keys, values in pairs) for pairs in clip.crossed))
        self._modulation, self._head = clip.modulation, clip.head
        self._graph: Graphed | None = None
        self._now = clip

    def restart(self, clip: Clip) -> None:
        """Take another clip of the same shape; the graph stays. Raises `ValueError` for another shape."""
        if clip.shape != self._clip.shape:
            raise ValueError(f"a graph for {tuple(self._clip.shape)} does not take {tuple(clip.shape)}")
        if clip is self._now:
            return
        self._now = clip
        self._modulation, self._head = clip.modulation, clip.head
        for old, new in zip(_flat(self._clip), _flat(clip), strict=True):
            old.copy_(new)

    @torch.no_grad()
    def __call__(self, latents_BCTHW: torch.Tensor, index: int) -> torch.Tensor:
        """The velocity at step `index`; on CUDA its memory is written again by the next call."""
        return self.at(latents_BCTHW, self._modulation[index], self._head[index])

    @torch.no_grad()
    def at(self, latents_BCTHW: torch.Tensor, modulation: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """The velocity at a step with these rows, as `FastWanTransformer.modulate` makes them."""
        if not latents_BCTHW.is_cuda:
            return self._network(latents_BCTHW, self._clip, modulation, head)
        if self._graph is None:
            self._graph = Graphed(
                lambda *given: self._network(given[0], self._clip, *given[1:]), (latents_BCTHW, modulation, head))
        return self._graph(latents_BCTHW, modulation, head)


def _flat(clip: Clip) -> list[torch.Tensor]:
    return [tensor for pairs in clip.crossed for pair in pairs for tensor in pair]
