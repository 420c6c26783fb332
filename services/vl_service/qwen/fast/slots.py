"""Writing tokens fast: rows of one cache, each with a conversation of its own, and one CUDA graph a token for them all.

    slots = Slots(model, length=2048, count=16)       # a Qwen-VL of transformers
    slots.join([Joining(prompt=…, slot=0, start=0, donor=None, …)])          # at any step; its prompt is read
    tokens = slots.steps([0], 8)                       # {slot: its next eight}
    slots.leave(0)

What a row has read stays until another takes its place, so that a prompt that begins alike need not be read again.
Anything that runs in torch runs here: off CUDA the same steps run without a graph. Used from one thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vl_service.qwen.fast.network import Cache, Network
from vl_service.qwen.fast.prompt import Prompt

CANDIDATES = 64  # the most that top-k may keep
_CHUNK = 8
_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_RULES = {  # of a generation config: those that `Sampling` and `stop_ids` say, and those that change no token
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty",
    "max_length", "max_new_tokens", "use_cache", "transformers_version", "_from_model_config",
}
_NEUTRAL = {"num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1, "length_penalty": 1, "typical_p": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn, as transformers' `generate` takes them; `greedy` takes the likeliest."""

    greedy: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = CANDIDATES
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0

    def noise(self, seed: int, tokens: int) -> torch.Tensor | None:
        """[tokens, CANDIDATES], which make the likeliest of weight + noise a draw; None for the likeliest itself.

        Drawn on the CPU, so that a seed means the same words on each device.
        """
        if self.greedy:
            return None
        uniform = torch.rand(tokens, CANDIDATES, generator=torch.Generator().manual_seed(seed % 2**63))
        return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """A conversation that takes a slot. The first `start` tokens of its prompt are in the row of `donor`."""

    prompt: Prompt
    slot: int
    start: int
    donor: int | None
    """None: in its own row, or nowhere."""
    sampling: Sampling
    noise: torch.Tensor | None


def why_not(model: Any) -> str | None:
    """Why this form cannot write what the model's `generate` would, or None."""
    if model.config.model_type not in _FAMILIES:
        return f"no fast form of {model.config.model_type}"
    language = model.model.language_model
    config = language.config
    linear = [getattr(layer.self_attn, f"{name}_proj") for layer in language.layers for name in "qkvo"]
    linear += [getattr(layer.mlp, f"{name}_proj") for layer in language.layers for name in ("gate", "up", "down")]
    if any(type(part) is not nn.Linear or type(part.weight.data) is not torch.Tensor
           for part in [*linear, model.lm_head]):
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


def candidates(
    logits_BV: torch.Tensor, seen_BV: torch.Tensor, how_B5: torch.Tensor, allowed_BV: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log weights and ids of the tokens that may come next, the likeliest first; -inf where one may not.

    Args:
        seen_BV: bool, what the prompt and the answer hold already.
        how_B5: temperature, top_p, top_k, repetition and presence penalty, on the device, so that one graph serves all.
        allowed_BV: bool, what may come at all.
    """
    temperature, top_p, top_k, repetition, presence = how_B5.T[:, :, None]
    penalised = torch.where(logits_BV < 0, logits_BV * repetition, logits_BV / repetition) - presence
    logits_BV = torch.where(seen_BV, penalised, logits_BV)
    if allowed_BV is not None:
        logits_BV = torch.where(allowed_BV, logits_BV, -torch.inf)
    best, ids = logits_BV.topk(min(CANDIDATES, logits_BV.shape[1]), dim=1)
    rank = torch.arange(best.shape[1], device=best.device)
    best = torch.where(rank < top_k, best / temperature, -torch.inf).log_softmax(1)
    before = best.exp().cumsum(1) - best.exp()
    return torch.where(before < top_p, best, -torch.inf), ids


class Slots:
    """See the module's text."""

    def __init__(self, model: Any, *, length: int, count: int, fp8: bool = False) -> None:
        """For `count` conversations of `length` tokens; `fp8` as `Network` has it.

        Raises `NotImplementedError` for what `why_not` names.
        """
        if reason := why_not(model):
            raise NotImplementedError(reason)
        self.network = network = Network(model, length, fp8=fp8)
        self.length, self.count = length, count
        self.chunk = _CHUNK if network.embedding.is_cuda else 1
        """Tokens between two looks at what was written, which waits for a CUDA device."""
        self._cache = network.new_cache(count)
        self.device, vocabulary = network.embedding.device, len(network.head)
        self._token = torch.zeros(count, dtype=torch.int64, device=self.device)
        self._position, self._turn, self._index, self._active = torch.zeros(
            4, count, dtype=torch.int32, device=self.device)
        self._logits = torch.zeros(count, vocabulary, device=self.device)
        self._known = 0
        """Of how many rows the logits are those after the last token."""
        self._seen = torch.zeros(count, vocabulary, dtype=torch.bool, device=self.device)
        self._allowed = torch.ones(count, vocabulary, dtype=torch.bool, device=self.device)
        self._recent = self._on_host(torch.zeros(length, count, dtype=torch.int64))
        self._rules = self._on_host(torch.ones(count, vocabulary, dtype=torch.bool))
        self._noise = torch.zeros(count, length, CANDIDATES, device=self.device)
        self._how = torch.ones(count, 5, device=self.device)
        self._graphs: dict[int, _Step] = {}

    def warm_up(self) -> None:
        """Compile and capture a step of each number of rows. Before the first conversation joins."""
        for rows in sorted({self._rows(slot) for slot in range(self.count)}, reverse=True):
            step = self._step(rows)
            if self.device.type == "cuda":
                self._graphs[rows] = _Step(look=_captured(step.look), choose=_captured(step.choose))
            else:
                step.look()
                step.choose()

    def join(self, joining: Sequence[Joining]) -> None:
        """Read the prompts. One may have its beginning from the row of one before it in the sequence."""
        self.network.read([
            one.prompt.part(self.network, row=one.slot, start=one.start, donor=one.donor) for one in joining
        ], self._cache)
        for one in joining:
            self._begin(one)
        self._known = 0

    def _begin(self, one: Joining) -> None:
        slot, sampling, ids = one.slot, one.sampling, one.prompt.ids
        self._token[slot] = ids[-1]
        self._position[slot] = len(ids) - 1
        self._turn[slot] = one.prompt.positions[0, 0, -1]
        self._index[slot] = 0
        self._active[slot] = 1
        self._seen[slot] = False
        self._seen[slot, ids] = True
        self._rule(slot, None)
        self._how[slot] = torch.tensor([
            1.0 if sampling.greedy else sampling.temperature, sampling.top_p, sampling.top_k,
            sampling.repetition_penalty, sampling.presence_penalty])
        if one.noise is None:
            self._noise[slot] = 0  # the likeliest stays the likeliest
        else:
            self._noise[slot, : len(one.noise)] = one.noise.to(self.device)

    def allow(self, slot: int, allowed_V: torch.Tensor) -> None:
        """Only these tokens may come next in the row: bool on the CPU, of the vocabulary's size at most."""
        self._rule(slot, allowed_V)

    def _rule(self, slot: int, allowed_V: torch.Tensor | None) -> None:
        rule = self._rules[slot]
        rule[:] = allowed_V is None
        if allowed_V is not None:
            rule[: len(allowed_V)] = allowed_V
        self._allowed[slot].copy_(rule, non_blocking=True)

    def steps(self, written: Sequence[int], count: int, *, ahead: bool = False) -> dict[int, list[int]]:
        """The next `count` tokens of each of the slots.

        `ahead`: the device goes on to what follows them while the caller says what `allow` allows there.
        """
        rows = self._rows(max(written))
        step = self._graphs.get(rows) or self._step(rows)
        for index in range(count):
            if self._known < rows:
                step.look()
            self._known = 0
            step.choose()
            self._recent[index].copy_(self._token, non_blocking=True)
        if self.device.type == "cuda":
            told = torch.cuda.Event()
            told.record()
            if ahead:
                step.look()
                self._known = rows
            told.synchronize()
        return {slot: self._recent[:count, slot].tolist() for slot in written}

    def leave(self, slot: int) -> None:
        """The row is done. Its cache stays as it is."""
        self._active[slot] = 0

    def copy(self, slot: int, to: int, length: int) -> None:
        """The first tokens of a row's cache into another's."""
        for part in (self._cache.keys, self._cache.values):
            part[:, to, :, :length] = part[:, slot, :, :length]
        self._position[to] = min(length, self.length - 1)  # where a row without a conversation may be written

    def _rows(self, slot: int) -> int:
        """How many rows a step has that reaches this slot."""
        return min(self.count, 1 << slot.bit_length())

    def _step(self, rows: int) -> "_Step":
        """One more token of each of the first rows; those without a conversation stay where they are."""
        position, turn, index, active = (
            part[:rows] for part in (self._position, self._turn, self._index, self._active))
        cache = Cache(keys=self._cache.keys[:, :rows], values=self._cache.values[:, :rows])
        logits = self._logits[:rows]

        def look() -> None:
            logits.copy_(self.network.step(self._token[:rows], position, turn, cache))

        def choose() -> None:
            best, ids = candidates(logits, self._seen[:rows], self._how[:rows], self._allowed[:rows])
            noise = self._noise[torch.arange(rows, device=self.device), index][:, : best.shape[1]]
            token = ids.gather(1, (best + noise).argmax(1, keepdim=True))
            self._token[:rows] = token[:, 0]
            self._seen[:rows].scatter_(1, token, True)
            for part in (position, turn, index):  # a row goes on to the end of a chunk that ends it
                part.add_(active).clamp_(max=self.length - 1)

        return _Step(look=look, choose=choose)

    def _on_host(self, values: torch.Tensor) -> torch.Tensor:
        """Where copies to and from the device wait for nobody."""
        return values.pin_memory() if self.device.type == "cuda" else values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Two parts, between which a caller may say which tokens are allowed."""

    look: Callable[[], None]
    """What follows the last tokens."""
    choose: Callable[[], None]


def _captured(work: Callable[[], None]) -> Callable[[], None]:
    """As a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
