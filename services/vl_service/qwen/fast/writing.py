"""Conversations → the words that a Qwen-VL checkpoint continues them with: by `generate`, or as rows of one step."""

import logging
import queue
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from vl_service.backend import Deadline
from vl_service.qwen.checkpoint import Checkpoint
from vl_service.qwen.fast.batch import Batch, Writing
from vl_service.qwen.fast.beside import beside
from vl_service.qwen.fast.prompt import prompt_of
from vl_service.qwen.fast.slots import Sampling, Slots
from vl_service.qwen.grammar import Grammar
from vl_service.qwen.vision.features import Features

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One conversation to continue."""

    ids: Sequence[int]
    """Of tokens, with one image token for every merged patch of a picture; the last is a word's."""
    seed: int
    max_new_tokens: int
    stop_repeating: bool = False
    """End where it only repeats itself. Where `generate` writes, it does not."""
    grammar: Grammar | None = None


class Writer(Protocol):
    """Continues conversations about one picture, or about none."""

    @property
    def reason(self) -> str:
        """What writes and why, in words; empty where there was no choice."""
        ...

    @property
    def at_once(self) -> int:
        """How many texts it writes at one time."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How it draws tokens where a call says nothing else."""
        ...

    def write(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        """New token ids for each. Raises `DeadlineExceededError` soon after the deadline passes."""
        ...

    def stream(
        self, seen: Features | None, ask: Ask, deadline: Deadline, *, sampling: Sampling | None = None
    ) -> Generator[list[int]]:
        """As `write` for one, a few tokens at a time as they are written, without what ends them.

        `sampling` in place of the writer's own. Closed early, it stops soon.
        """
        ...


class Generate:
    """By transformers' `generate`, one after another."""

    at_once = 1

    def __init__(self, checkpoint: Checkpoint, sampling: Sampling, *, reason: str = "") -> None:
        self._checkpoint, self.sampling, self.reason = checkpoint, sampling, reason
        self._turn = threading.Lock()

    def write(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        """See `Writer.write`."""
        return [self._one(seen, ask, deadline, _arguments(self.sampling)) for ask in asks]

    def stream(
        self, seen: Features | None, ask: Ask, deadline: Deadline, *, sampling: Sampling | None = None
    ) -> Generator[list[int]]:
        """See `Writer.stream`. `generate` returns when all is written, so it runs on a thread of its own."""
        written: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        closed, failures = threading.Event(), list[Exception]()
        until_closed = replace(deadline, is_canceled=lambda: closed.is_set() or deadline.is_canceled())
        arguments = _arguments(sampling or self.sampling) | {"streamer": _Tokens(written)}
        ends = frozenset(stop_ids_of(self._checkpoint))

        @torch.inference_mode()
        def run() -> None:
            try:
                self._one(seen, ask, until_closed, arguments)
            except Exception as error:  # raised below, where the caller is
                failures.append(error)
            finally:
                written.put(None)

        thread = threading.Thread(target=run, name="generate")
        thread.start()
        try:
            while (token := written.get()) is not None:
                if token not in ends:
                    yield [token]
        finally:
            closed.set()
            thread.join()
        if failures:
            raise failures[0]

    def _one(self, seen: Features | None, ask: Ask, deadline: Deadline, arguments: dict[str, Any]) -> list[int]:
        with self._turn:  # the model keeps a state between two steps
            deadline.check()
            return self._written(seen, ask, deadline, arguments)

    def _written(self, seen: Features | None, ask: Ask, deadline: Deadline, arguments: dict[str, Any]) -> list[int]:
        checkpoint = self._checkpoint
        input_ids = torch.tensor([ask.ids], device=checkpoint.device)
        inputs: dict[str, Any] = {
            "input_ids": input_ids, "attention_mask": torch.ones_like(input_ids),
            # without it Qwen2.5-VL silently takes text positions for the picture's tokens
            "mm_token_type_ids": (input_ids == checkpoint.image_token_id).to(torch.int32),
        }
        if seen is not None:
            inputs |= {"image_grid_thw": seen.grid_thw.to(checkpoint.device),
                       "mm_encoder_outputs": {"image": seen.encoded}}
        checkpoint.model.model.rope_deltas = None  # positions of the conversation before this one
        devices = [checkpoint.device] if checkpoint.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(ask.seed % 2**63)
            output = checkpoint.model.generate(
                **inputs, max_new_tokens=ask.max_new_tokens, **arguments,
                stopping_criteria=StoppingCriteriaList([_StopAtDeadline(deadline)]),
                logits_processor=LogitsProcessorList([] if ask.grammar is None else [_Ruled(ask.grammar)]),
            )
        deadline.check()
        return output[0, input_ids.shape[1]:].tolist()


def _arguments(sampling: Sampling) -> dict[str, Any]:
    """Of `generate`."""
    if sampling.greedy:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}


class _StopAtDeadline(StoppingCriteria):
    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        stop = torch.full((input_ids.shape[0],), self.deadline.passed(), device=input_ids.device)
        return cast(torch.BoolTensor, stop)


class _Ruled(LogitsProcessor):
    """Only tokens that the grammar allows; a reply's first call has the prompt alone."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar, self._begun = grammar, False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.FloatTensor:
        if self._begun:
            self._grammar.take(int(input_ids[0, -1]))
        self._begun = True
        allowed = self._grammar.allowed()[: scores.shape[1]].to(scores.device)
        out = torch.full_like(scores, -torch.inf)
        out[:, : len(allowed)] = scores[:, : len(allowed)].masked_fill(~allowed, -torch.inf)
        return cast(torch.FloatTensor, out)


class _Tokens(BaseStreamer):
    """Hands on what `generate` writes; the first it is given is the prompt."""

    def __init__(self, written: "queue.SimpleQueue[int | None]") -> None:
        self._written, self._prompt_is_next = written, True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_is_next:
            for token in value.flatten().tolist():
                self._written.put(token)
        self._prompt_is_next = False

    def end(self) -> None:
        pass


class SlotWriter:
    """As rows of one step, with whatever others write; what does not fit its cache by `plain`."""

    def __init__(
        self, checkpoint: Checkpoint, sampling: Sampling, plain: Writer, *, length: int, slots: int,
        fp8: bool = False,
    ) -> None:
        """Raises `NotImplementedError` for what `slots.why_not` names, and what stepping once does."""
        rules = checkpoint.model.generation_config
        self._checkpoint, self._plain, self._length = checkpoint, plain, length
        self.at_once = slots
        self.sampling = replace(sampling, repetition_penalty=rules.repetition_penalty or 1.0)
        self._stop_ids = stop_ids_of(checkpoint)
        began = time.monotonic()
        with torch.inference_mode():
            rows = Slots(checkpoint.model, length=length, count=slots, fp8=fp8)
            packed = time.monotonic()
            rows.warm_up()
        log.info("slots are ready", extra={
            "slots": slots, "packing_s": round(packed - began, 2), "warm_up_s": round(time.monotonic() - packed, 2)})
        self._batch = Batch(rows)
        graph = "a CUDA graph a token for" if checkpoint.device.type == "cuda" else "one step for"
        self.reason = f"{graph} up to {slots} texts at once" + (", weights in float8" if fp8 else "")

    def write(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        """See `Writer.write`."""
        deadline.check()
        writing = {index: self._begun(seen, ask, self.sampling) for index, ask in enumerate(asks) if self._fits(ask)}
        self._batch.submit(list(writing.values()))
        try:
            return [
                [token for piece in writing[index].pieces(deadline) for token in piece] if index in writing
                else self._plain.write(seen, [ask], deadline)[0] for index, ask in enumerate(asks)
            ]
        finally:
            for one in writing.values():
                one.closed = True

    def stream(
        self, seen: Features | None, ask: Ask, deadline: Deadline, *, sampling: Sampling | None = None
    ) -> Generator[list[int]]:
        """See `Writer.stream`."""
        if not self._fits(ask):
            yield from self._plain.stream(seen, ask, deadline, sampling=sampling)
            return
        deadline.check()
        writing = self._begun(
            seen, ask, replace(sampling or self.sampling, repetition_penalty=self.sampling.repetition_penalty))
        self._batch.submit([writing])
        yield from writing.pieces(deadline)

    def _fits(self, ask: Ask) -> bool:
        needed = len(ask.ids) + ask.max_new_tokens
        if needed > self._length:
            log.info("generate writes", extra={
                "reason": f"{needed} tokens, prompt and answer, are more than the fast cache's {self._length}"})
        return needed <= self._length

    @torch.inference_mode()
    def _begun(self, seen: Features | None, ask: Ask, sampling: Sampling) -> Writing:
        checkpoint = self._checkpoint
        with beside(checkpoint.device):
            prompt = prompt_of(
                ask.ids, seen, image_token_id=checkpoint.image_token_id, device=checkpoint.device,
                merge=checkpoint.model.config.vision_config.spatial_merge_size)
        return Writing(
            prompt, sampling, seed=ask.seed, max_new_tokens=ask.max_new_tokens, stop_ids=self._stop_ids,
            stop_repeating=ask.stop_repeating, grammar=ask.grammar)


def stop_ids_of(checkpoint: Checkpoint) -> list[int]:
    """Of the tokens that end a text."""
    ends = checkpoint.model.generation_config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or ())
