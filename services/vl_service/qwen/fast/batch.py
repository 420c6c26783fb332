"""Conversations of several callers as rows of one step: they join and leave between two chunks of tokens.

A thread of its own owns the slots. Callers hand it what is to be written and take the tokens from queues; each caller
in turn gets a slot, so that one with many tasks keeps nobody waiting for all of them.
"""

import itertools
import queue
import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from vl_service.qwen.fast.prompt import Prompt, common_start
from vl_service.qwen.fast.slots import Joining, Sampling, Slots
from web.worker.faults import breaks_the_device

_READ_AT_ONCE = 8192  # tokens; what would be more waits for the next chunk
_WORTH_SHARING = 8  # tokens
_LOOK_S = 0.05  # between two looks at whether anybody still waits
_IDLE_S = 10.0  # then the thread ends


class Deadline(Protocol):
    """`backend.Deadline`."""

    def check(self) -> None: ...


class Grammar(Protocol):
    """`grammar.Grammar`."""

    def allowed(self) -> torch.Tensor: ...
    def take(self, token: int) -> None: ...


class Writing:
    """One conversation that is being continued. The thread of the batch fills it, its caller reads it."""

    def __init__(
        self, prompt: Prompt, sampling: Sampling, *, seed: int, max_new_tokens: int, stop_ids: Sequence[int],
        stop_repeating: bool = False, grammar: Grammar | None = None,
    ) -> None:
        self.prompt, self.sampling, self.grammar = prompt, sampling, grammar
        self.max_new_tokens = max_new_tokens
        self.noise = sampling.noise(seed, max_new_tokens)
        self.written: list[int] = []
        self.closed = False
        """Nobody reads it any more."""
        self._stop_ids, self._stop_repeating = frozenset(stop_ids), stop_repeating
        self._told: queue.SimpleQueue[list[int] | Exception | None] = queue.SimpleQueue()

    def pieces(self, deadline: Deadline) -> Generator[list[int]]:
        """New token ids as they are written, without the stop that ends them. Raises what the writing did, too."""
        try:
            while True:
                try:
                    piece = self._told.get(timeout=_LOOK_S)
                except queue.Empty:
                    deadline.check()
                    continue
                deadline.check()
                if piece is None:
                    return
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed = True

    def take(self, tokens: Sequence[int]) -> bool:
        """The next tokens; whether that is all."""
        new, ended = list(tokens), False
        for index, token in enumerate(tokens):
            if token in self._stop_ids or len(self.written) + index >= self.max_new_tokens:
                new, ended = new[:index], True
                break
        self.written += new
        if new:
            self._told.put(new)
        ended = ended or len(self.written) >= self.max_new_tokens
        ended = ended or (self._stop_repeating and repeated_end(self.written) > 0)
        if ended:
            self._told.put(None)
        return ended

    def fail(self, error: Exception) -> None:
        self._told.put(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What a row has read and written."""

    marks: "np.ndarray[Any, np.dtype[np.int64]]"
    pictures: tuple[str, ...]
    used: int


class Batch:
    """See the module's text. Its methods may be called from any thread."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._changed = threading.Condition()
        self._inbox: list[deque[Writing]] = []
        self._thread: threading.Thread | None = None
        # of the thread alone, from here on
        self._waiting: deque[deque[Writing]] = deque()
        self._writing: dict[int, Writing] = {}
        self._kept: list[_Kept | None] = [None] * slots.count
        self._turns = itertools.count(1)

    def submit(self, call: Sequence[Writing]) -> None:
        """Write what one caller wants, as slots come free."""
        if not call:
            return
        with self._changed:
            self._inbox.append(deque(call))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        with torch.inference_mode():
            while self._take_in():
                try:
                    self._go_on()
                except Exception as error:  # whatever a step raises is the failure of all that it wrote
                    for slot in list(self._writing):
                        self._end(slot, error)

    def _take_in(self) -> bool:
        """Whether there is something to do; else the thread ends."""
        with self._changed:
            busy = self._writing or self._waiting
            if not busy and not self._changed.wait_for(lambda: self._inbox, timeout=_IDLE_S):
                self._thread = None
                return False
            self._waiting.extend(self._inbox)
            self._inbox.clear()
            return True

    def _go_on(self) -> None:
        """Let those leave that nobody waits for, those join for whom there is room, and write a few tokens of all."""
        for slot, writing in list(self._writing.items()):
            if writing.closed:
                self._end(slot)
        self._join()
        if not self._writing:
            return
        left = max(writing.max_new_tokens - len(writing.written) for writing in self._writing.values())
        ruled = any(writing.grammar for writing in self._writing.values())
        tokens = self._slots.steps(
            list(self._writing), 1 if ruled else min(self._slots.chunk, left), ahead=ruled)
        for slot, writing in list(self._writing.items()):
            if writing.take(tokens[slot]):
                self._end(slot)
            elif writing.grammar is not None:
                writing.grammar.take(tokens[slot][0])
                self._slots.allow(slot, writing.grammar.allowed())

    def _join(self) -> None:
        """Give free slots to those who wait, one of each caller in turn."""
        free = [slot for slot in range(self._slots.count) if slot not in self._writing]
        arriving: dict[Writing, Joining | None] = {}
        try:
            self._place(free, arriving)
            joining = [one for one in arriving.values() if one is not None]
            if joining:
                self._slots.join(joining)
            for writing, one in arriving.items():
                if writing.grammar is not None and one is not None:
                    self._slots.allow(one.slot, writing.grammar.allowed())
        except Exception as error:  # too little memory to read them is no fault of the others
            for writing, one in arriving.items():
                writing.fail(error)
                if one is not None:
                    self._slots.leave(one.slot)
                    self._kept[one.slot] = None
            if breaks_the_device(error):
                raise
        else:
            self._writing |= {one.slot: writing for writing, one in arriving.items() if one is not None}

    def _place(self, free: list[int], arriving: dict[Writing, Joining | None]) -> None:
        """Who arrives, and where; None while that is not known."""
        size = 0
        while free and self._waiting and size < _READ_AT_ONCE:
            call = self._waiting.popleft()
            writing = call.popleft()
            if call:
                self._waiting.append(call)
            if writing.closed:
                continue
            arriving[writing] = None
            donors = {each.donor for each in arriving.values() if each is not None}
            one = arriving[writing] = self._placed(writing, free, donors)
            free.remove(one.slot)
            size += len(one.prompt.ids) - one.start

    def _placed(self, writing: Writing, free: Sequence[int], donors: set[int | None]) -> Joining:
        """A slot for it, and the row that has most of what it begins with."""
        prompt = writing.prompt
        shared, donor = 0, -1
        for slot, kept in enumerate(self._kept):
            if kept is not None:
                same = min(common_start(prompt.marks, prompt.pictures, kept.marks, kept.pictures), len(prompt.ids) - 1)
                if same > shared and same >= _WORTH_SHARING:
                    shared, donor = same, slot
        reach = max([free[0], *self._writing])  # a step of more rows takes longer
        slot = donor if donor in free and donor <= reach else free[0]
        if slot != donor:
            self._make_room(slot, [one for one in free if one != donor and one not in donors])
        self._kept[slot] = _Kept(marks=prompt.marks, pictures=prompt.pictures, used=next(self._turns))
        return Joining(
            prompt=prompt, slot=slot, start=shared, donor=None if donor in (-1, slot) else donor,
            sampling=writing.sampling, noise=writing.noise)

    def _make_room(self, slot: int, others: Sequence[int]) -> None:
        """What the row keeps goes to one that keeps nothing as recent: to copy it takes less than to read it again."""
        def used(one: int) -> int:
            kept = self._kept[one]
            return 0 if kept is None else kept.used

        oldest, kept = min(others, key=used, default=slot), self._kept[slot]
        if kept is not None and oldest != slot:
            self._slots.copy(slot, oldest, len(kept.marks))
            self._kept[oldest] = kept

    def _end(self, slot: int, error: Exception | None = None) -> None:
        writing, kept = self._writing.pop(slot), self._kept[slot]
        self._slots.leave(slot)
        if error is not None:
            self._kept[slot] = None
            writing.fail(error)
        elif kept is not None:  # all but the last of what was written has been read
            marks = np.concatenate([kept.marks, np.array(writing.written[:-1], dtype=np.int64)])
            self._kept[slot] = _Kept(marks=marks, pictures=kept.pictures, used=kept.used)


def repeated_end(tokens: Sequence[int]) -> int:
    """How many tokens at the end only repeat what stands before them, thrice and for 24 tokens at least; else 0."""
    length = len(tokens)
    for period in range(1, min(48, length // 3) + 1):
        span = period
        while span < length and tokens[-1 - span] == tokens[-1 - span + period]:
            span += 1
        if span >= max(3 * period, 24):
            return span - period
    return 0
