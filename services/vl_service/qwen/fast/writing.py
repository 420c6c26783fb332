"""Conversations → the words that a Qwen-VL checkpoint continues them with: by `generate`, or by the fast decoder."""

import logging
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from vl_service.backend import Deadline
from vl_service.qwen.checkpoint import Checkpoint
from vl_service.qwen.fast.decode import FastDecoder, Prompt, Sampling, prompt_of
from vl_service.qwen.features import Features

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One conversation to continue."""

    input_ids: torch.Tensor
    """int64 [1, L], with one image token for every merged patch of the picture."""
    seed: int
    max_new_tokens: int


class Writer(Protocol):
    """Continues conversations about one picture, or about none."""

    @property
    def reason(self) -> str:
        """What writes and why, in words; empty where there was no choice."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How it draws tokens where a call says nothing else."""
        ...

    def write(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        """New token ids for each. Raises `DeadlineExceededError` soon after the deadline passes."""
        ...

    def stream(
        self, seen: Features | None, ask: Ask, deadline: Deadline, *, sampling: Sampling | None = None,
        rules: Sequence[LogitsProcessor] = (),
    ) -> Generator[list[int]]:
        """As `write` for one, a few tokens at a time as they are written, without what ends them.

        `sampling` in place of the writer's own; `rules` say which tokens may follow. Closed early, it stops in a token.
        """
        ...


class Generate:
    """By transformers' `generate`, one after another."""

    def __init__(self, checkpoint: Checkpoint, sampling: Sampling, *, reason: str = "") -> None:
        self._checkpoint, self.sampling, self.reason = checkpoint, sampling, reason

    def write(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        """See `Writer.write`."""
        return [self._one(seen, ask, deadline, _arguments(self.sampling)) for ask in asks]

    def stream(
        self, seen: Features | None, ask: Ask, deadline: Deadline, *, sampling: Sampling | None = None,
        rules: Sequence[LogitsProcessor] = (),
    ) -> Generator[list[int]]:
        """See `Writer.stream`. `generate` returns when all is written, so it runs on a thread of its own."""
        written: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        closed, failures = threading.Event(), list[Exception]()
        until_closed = replace(deadline, is_canceled=lambda: closed.is_set() or deadline.is_canceled())
        arguments = _arguments(sampling or self.sampling) | {
            "streamer": _Tokens(written), "logits_processor": LogitsProcessorList(rules)}

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
                if token not in self._ends:
                    yield [token]
        finally:
            closed.set()
            thread.join()
        if failures:
            raise failures[0]

    @property
    def _ends(self) -> frozenset[int]:
        ends = self._checkpoint.model.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or ())

    def _one(self, seen: Features | None, ask: Ask, deadline: Deadline, arguments: dict[str, Any]) -> list[int]:
        deadline.check()
        checkpoint, input_ids = self._checkpoint, ask.input_ids
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


class FastWriter:
    """By the fast decoder, several at once; what does not fit its cache by `plain`."""

    def __init__(
        self, checkpoint: Checkpoint, sampling: Sampling, plain: Writer, *, max_length: int, max_rows: int = 4
    ) -> None:
        """Raises `NotImplementedError` for what `decode.why_not` names."""
        rules = checkpoint.model.generation_config
        self._checkpoint, self._plain = checkpoint, plain
        self.sampling = replace(sampling, repetition_penalty=rules.repetition_penalty or 1.0)
        ends = rules.eos_token_id
        self._stop_ids: list[int] = [ends] if isinstance(ends, int) else list(ends or ())
        self._decoder = FastDecoder(checkpoint.model, max_length=max_length, max_rows=max_rows)
        self._max_length, self._max_rows = max_length, max_rows
        self.reason = f"a token as a CUDA graph, up to {max_rows} tasks at once"

    @torch.inference_mode()
    def try_out(self) -> None:
        """Write a few tokens, alone and together: compiles what a call needs, and raises what would fail it."""
        words = torch.arange(8, device=self._checkpoint.device)[None]
        ask = Ask(input_ids=words, seed=0, max_new_tokens=3)
        never = Deadline(at=float("inf"))
        for rows in (1, min(2, self._max_rows)):
            self.write(None, [ask] * rows, never)

    def write(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        """See `Writer.write`. Tasks that may be as long are the rows of one `FastDecoder.write`."""
        answers: dict[int, list[int]] = {}
        alike: dict[int, list[int]] = {}
        for index, ask in enumerate(asks):
            needed = ask.input_ids.shape[1] + ask.max_new_tokens
            if needed > self._max_length:
                log.info("generate writes", extra={
                    "reason": f"{needed} tokens, prompt and answer, are more than the fast cache's {self._max_length}"})
                answers[index] = self._plain.write(seen, [ask], deadline)[0]
            else:
                alike.setdefault(ask.max_new_tokens, []).append(index)
        for indices in alike.values():
            for start in range(0, len(indices), self._max_rows):
                rows = indices[start: start + self._max_rows]
                written = self._together(seen, [asks[index] for index in rows], deadline)
                answers |= zip(rows, written, strict=True)
        return [answers[index] for index in range(len(asks))]

    @torch.inference_mode()
    def stream(
        self, seen: Features | None, ask: Ask, deadline: Deadline, *, sampling: Sampling | None = None,
        rules: Sequence[LogitsProcessor] = (),
    ) -> Generator[list[int]]:
        """See `Writer.stream`."""
        if rules or ask.input_ids.shape[1] + ask.max_new_tokens > self._max_length:
            yield from self._plain.stream(seen, ask, deadline, sampling=sampling, rules=rules)
            return
        deadline.check()
        how = replace(sampling or self.sampling, repetition_penalty=self.sampling.repetition_penalty)
        for [tokens] in self._decoder.write(
            [self._prompt(seen, ask.input_ids)], how, max_new_tokens=ask.max_new_tokens, stop_ids=self._stop_ids,
            seeds=[ask.seed],
        ):
            deadline.check()
            if tokens:
                yield tokens

    def _together(self, seen: Features | None, asks: Sequence[Ask], deadline: Deadline) -> list[list[int]]:
        deadline.check()
        answers: list[list[int]] = [[] for _ in asks]
        for chunk in self._decoder.write(
            [self._prompt(seen, ask.input_ids) for ask in asks], self.sampling, max_new_tokens=asks[0].max_new_tokens,
            stop_ids=self._stop_ids, seeds=[ask.seed for ask in asks],
        ):
            deadline.check()
            for answer, more in zip(answers, chunk, strict=True):
                answer += more
        return answers

    def _prompt(self, seen: Features | None, input_ids: torch.Tensor) -> Prompt:
        pictured = input_ids == self._checkpoint.image_token_id
        grid, encoded = (None, None) if seen is None else (seen.grid_thw, seen.encoded)
        return prompt_of(self._checkpoint.model, input_ids, pictured, grid, encoded)
