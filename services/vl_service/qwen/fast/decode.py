"""Writing tokens fast: a cache of fixed size, one CUDA graph a token with the sampling inside, several rows at once.

    decoder = FastDecoder(model, max_length=2048)                      # a Qwen-VL of transformers, in bfloat16 on CUDA
    prompts = [prompt_of(model, input_ids, picture_mask, grid_thw, features)]   # one a task of the same call
    for chunk in decoder.write(prompts, Sampling(temperature=0.7), max_new_tokens=128, stop_ids=stops, seeds=[7]):
        ...                                                            # chunk[row]: its next few token ids

What the prompts begin with in common (the system's words and the picture) is read once. Anything that runs in torch
runs here: off CUDA the same steps run without a graph. Raises before the first token where a prompt does not fit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vl_service.qwen.fast.network import Cache, Network

CANDIDATES = 64  # the most that top-k may keep
CHUNK = 8  # tokens between two looks at what was written
_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_RULES = {  # of a generation config: those that `Sampling` and `stop_ids` say, and those that change no token
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty",
    "max_length", "max_new_tokens", "use_cache", "transformers_version", "_from_model_config",
}
_NEUTRAL = {"num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1, "length_penalty": 1, "typical_p": 1}


def why_not(model: Any) -> str | None:
    """Why this form cannot write what the model's `generate` would, or None."""
    if model.config.model_type not in _FAMILIES:
        return f"no fast form of {model.config.model_type}"
    language = model.model.language_model
    config = language.config
    linear = [getattr(layer.self_attn, f"{name}_proj") for layer in language.layers for name in "qkvo"]
    linear += [getattr(layer.mlp, f"{name}_proj") for layer in language.layers for name in ("gate", "up", "down")]
    if any(type(part) is not nn.Linear for part in [*linear, model.lm_head]):
        return "its linear layers are not plain"
    if any(layer.self_attn.o_proj.bias is not None for layer in language.layers):
        return "its attention has an output bias"
    if any(getattr(layer.self_attn, "sliding_window", None) for layer in language.layers):
        return "its attention has a sliding window"
    dim, weight = language.layers[0].self_attn.head_dim, language.embed_tokens.weight
    if weight.is_cuda and weight.dtype == torch.bfloat16 and (dim < 32 or dim & (dim - 1)):
        return f"no kernel for heads of {dim} channels"
    if config.hidden_act != "silu" or language.rotary_emb.rope_type != "default":
        return f"{config.hidden_act} or {language.rotary_emb.rope_type} positions are not covered"
    rules = model.generation_config.to_diff_dict()
    others = sorted(name for name in rules.keys() - _RULES if rules[name] and rules[name] != _NEUTRAL.get(name))
    return f"its generation config sets {', '.join(others)}" if others else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn, as transformers' `generate` takes them; `greedy` takes the likeliest."""

    greedy: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = CANDIDATES
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One conversation, with its picture in place."""

    ids: torch.Tensor
    """int64 [L]."""
    embeds: torch.Tensor
    """[L, C]."""
    positions: torch.Tensor
    """int64 [3, 1, L]."""
    pictured: torch.Tensor
    """bool [L]."""
    deepstack: tuple[torch.Tensor, ...] = ()


def prompt_of(
    model: Any, input_ids_BL: torch.Tensor, picture_mask_BL: torch.Tensor, grid_thw: torch.Tensor | None, encoded: Any
) -> Prompt:
    """A prompt [1, L] whose places in `picture_mask_BL` take `encoded`, what `get_image_features` returned."""
    ids, pictured = input_ids_BL[0], picture_mask_BL[0].bool()
    embeds = model.model.language_model.embed_tokens(ids)
    if grid_thw is None:
        positions = torch.arange(len(ids), device=ids.device).expand(3, 1, -1)
        return Prompt(ids=ids, embeds=embeds, positions=positions, pictured=pictured)
    embeds = embeds.masked_scatter(pictured[:, None], torch.cat(tuple(encoded.pooler_output)).to(embeds.dtype))
    positions = positions_of(pictured.cpu(), grid_thw.tolist(), model.config.vision_config.spatial_merge_size)
    positions = positions.to(ids.device)
    deepstack = tuple(torch.cat(tuple(part)) for part in getattr(encoded, "deepstack_features", None) or ())
    return Prompt(ids=ids, embeds=embeds, positions=positions, pictured=pictured, deepstack=deepstack)


def positions_of(pictured_L: torch.Tensor, grids: Sequence[Sequence[int]], merge: int) -> torch.Tensor:
    """Positions [3, 1, L] (time, row, column) of words and still pictures, as `get_rope_index` has them.

    That one walks over the tokens in Python: 35 ms and more for 1,280 of them, longer than reading them takes.
    """
    parts: list[torch.Tensor] = []
    at, begin = 0, 0  # the next position, and the next token
    for _, rows, columns in grids:
        rows, columns = rows // merge, columns // merge
        start = begin + int(pictured_L[begin:].int().argmax())
        parts.append((torch.arange(start - begin) + at).expand(3, -1))
        at += start - begin
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        parts.append(torch.stack([torch.zeros_like(row), row, column]).flatten(1) + at)
        at, begin = at + max(rows, columns), start + rows * columns
    parts.append((torch.arange(len(pictured_L) - begin) + at).expand(3, -1))
    return torch.cat(parts, dim=1)[:, None]


class FastDecoder:
    """See the module's text. One call at a time: the cache is its own."""

    def __init__(self, model: Any, *, max_length: int = 2048, max_rows: int = 1) -> None:
        """Raises `NotImplementedError` for what `why_not` names."""
        if reason := why_not(model):
            raise NotImplementedError(reason)
        self._network = Network(model, max_length)
        self._cache = self._network.new_cache(max_rows)
        self._rows: dict[int, _Rows] = {}

    @torch.no_grad()
    def write(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, max_new_tokens: int, stop_ids: Sequence[int],
        seeds: Sequence[int],
    ) -> Iterator[list[list[int]]]:
        """New token ids of each row, a few at a time, without the stop that ends it.

        Raises `ValueError` where a prompt and its tokens are longer than the cache, or there are too many rows.
        """
        longest = max(len(prompt.ids) for prompt in prompts) + max_new_tokens
        if longest > self._network.length or len(prompts) > self._cache.keys.shape[1]:
            raise ValueError(f"{len(prompts)} prompts up to {longest} tokens do not fit the cache")
        rows = self._rows.get(len(prompts))
        if rows is None:
            rows = self._rows[len(prompts)] = _Rows(self._network, self._cache, len(prompts))
        rows.begin(prompts, sampling, max_new_tokens, seeds)
        rows.take(self._network.logits(self._read(prompts)))
        done = [False] * len(prompts)
        for start in range(0, max_new_tokens, CHUNK):
            end = min(start + CHUNK, max_new_tokens)
            for _ in range(start or 1, end):
                rows.step()
            written = rows.written[:, start:end].tolist()
            yield [[] if over else _until(row, stop_ids) for row, over in zip(written, done, strict=True)]
            done = [over or bool(set(row) & set(stop_ids)) for row, over in zip(written, done, strict=True)]
            if all(done):
                return

    def _read(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """The state [rows, C] after each prompt."""
        shared = common_start(prompts)
        states = []
        for row, prompt in enumerate(prompts):
            start = shared if row else 0
            if start:
                for part in (self._cache.keys, self._cache.values):
                    part[:, row, :, :start] = part[:, 0, :, :start]
            states.append(self._network.read(
                prompt.embeds[start:], prompt.positions[:, :, start:], self._cache, row, start,
                () if start else prompt.deepstack, prompt.pictured))
        return torch.cat(states)


def common_start(prompts: Sequence[Prompt]) -> int:
    """How many first tokens all prompts share, up to where one has none left to read; a picture is whole or absent."""
    first = prompts[0]
    same = min(len(prompt.ids) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        different = (prompt.ids[:same] != first.ids[:same]) | (prompt.embeds[:same] != first.embeds[:same]).any(1)
        where = different.nonzero()
        same = int(where[0, 0]) if len(where) else same
    whole = all(not bool(prompt.pictured[same:].any()) for prompt in prompts)
    return same if whole else 0


def candidates(
    logits_BV: torch.Tensor, seen_BV: torch.Tensor, how: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log weights and ids of the tokens that may come next, the likeliest first; -inf where one may not.

    Args:
        seen_BV: bool, what the prompt and the answer hold already.
        how: temperature, top_p, top_k, repetition and presence penalty, on the device, so that one graph serves all.
    """
    temperature, top_p, top_k, repetition, presence = how
    penalised = torch.where(logits_BV < 0, logits_BV * repetition, logits_BV / repetition) - presence
    best, ids = torch.where(seen_BV, penalised, logits_BV).topk(min(CANDIDATES, logits_BV.shape[1]), dim=1)
    rank = torch.arange(best.shape[1], device=best.device)
    best = torch.where(rank < top_k, best / temperature, -torch.inf).log_softmax(1)
    before = best.exp().cumsum(1) - best.exp()
    return torch.where(before < top_p, best, -torch.inf), ids


def _until(tokens: list[int], stop_ids: Sequence[int]) -> list[int]:
    return tokens[: next((index for index, token in enumerate(tokens) if token in stop_ids), len(tokens))]


class _Rows:
    """The state of so many rows as they are written; on CUDA a step is one graph launch."""

    def __init__(self, network: Network, cache: Cache, rows: int) -> None:
        device, size = network.embedding.device, network.length
        self._network = network
        self._cache = Cache(keys=cache.keys[:, :rows], values=cache.values[:, :rows])
        self._token = torch.zeros(rows, dtype=torch.int64, device=device)
        self._position, self._turn, self._index = torch.zeros(3, rows, dtype=torch.int32, device=device)
        self.written = torch.zeros(rows, size, dtype=torch.int64, device=device)
        self._seen = torch.zeros(rows, len(network.head), dtype=torch.bool, device=device)
        self._noise = torch.zeros(size, rows, CANDIDATES, device=device)
        self._how = torch.ones(5, device=device)
        self._graph: Callable[[], None] | None = None

    def begin(self, prompts: Sequence[Prompt], sampling: Sampling, tokens: int, seeds: Sequence[int]) -> None:
        if not 1 <= sampling.top_k <= CANDIDATES:
            raise ValueError(f"top_k must be 1 to {CANDIDATES}")
        self._position.copy_(torch.tensor([len(prompt.ids) for prompt in prompts]))
        self._turn.copy_(torch.stack([prompt.positions.max() + 1 for prompt in prompts]))
        self._index.zero_()
        self._seen.zero_()
        for row, prompt in enumerate(prompts):
            self._seen[row, prompt.ids] = True
        self._how.copy_(torch.tensor([
            1.0 if sampling.greedy else sampling.temperature, sampling.top_p, sampling.top_k,
            sampling.repetition_penalty, sampling.presence_penalty]))
        self._noise.zero_()  # the likeliest stays the likeliest
        if not sampling.greedy:
            for row, seed in enumerate(seeds):
                # Drawn on the CPU, so that a seed means the same words on each device.
                uniform = torch.rand(tokens, CANDIDATES, generator=torch.Generator().manual_seed(seed % 2**63))
                self._noise[:tokens, row].copy_(-(-uniform.clamp(1e-20, 1 - 1e-7).log()).log())

    def take(self, logits_BV: torch.Tensor) -> None:
        """Choose the next token of each row, and note it."""
        best, ids = candidates(logits_BV, self._seen, self._how)
        noise = self._noise[self._index[:1].long()][0, :, : best.shape[1]]
        token = ids.gather(1, (best + noise).argmax(1, keepdim=True))
        self._token.copy_(token[:, 0])
        self.written.scatter_(1, self._index[:, None].long(), token)
        self._seen.scatter_(1, token, True)
        self._index.add_(1)

    def step(self) -> None:
        if not self._token.is_cuda:
            self._advance()
            return
        if self._graph is None:
            self._graph = self._captured()
        self._graph()

    def _advance(self) -> None:
        self.take(self._network.step(self._token, self._position, self._turn, self._cache))
        self._position.add_(1)
        self._turn.add_(1)

    def _captured(self) -> Callable[[], None]:
        """The step as a graph. Its warm-up runs write only past what was read, and are taken back."""
        state = [self._token, self._position, self._turn, self._index, self.written, self._seen]
        kept = [part.clone() for part in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._advance()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._advance()
        for part, before in zip(state, kept, strict=True):
            part.copy_(before)
        return graph.replay
