"""Replies that are JSON of a schema: which tokens may come next. By llguidance, 50 µs a token."""

import json
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from vl_service.backend import CannotReplyError


class Grammar:
    """One reply's state."""

    def __init__(self, matcher: Any, num_tokens: int) -> None:
        self._matcher, self._num_tokens = matcher, num_tokens

    def allowed(self) -> torch.Tensor:
        """bool [tokens of the tokenizer] on the CPU; what ends a reply once the JSON is complete."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little", count=self._num_tokens).view(bool))

    def take(self, token: int) -> None:
        """The reply goes on with this token."""
        self._matcher.consume_token(token)


class Grammars:
    """Of one tokenizer, which takes a second to read, and so is when the first schema comes."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, list(stop_ids)
        self._lock = threading.Lock()
        self._read: Any = None

    def for_schema(self, schema: Mapping[str, Any] | None) -> Grammar | None:
        """As `of`; None of none, and where llguidance is not installed: the words ask for JSON, too."""
        if schema is None or find_spec("llguidance") is None:
            return None
        return self.of(schema)

    def of(self, schema: Mapping[str, Any]) -> Grammar:
        """Raises `CannotReplyError` for what is no schema, or none that is known here."""
        try:
            import llguidance.hf
        except ImportError as error:
            raise CannotReplyError(
                "`response_format` needs the package llguidance, which is not installed here.") from error
        with self._lock:
            if self._read is None:
                self._read = llguidance.hf.from_tokenizer(self._tokenizer, eos_token=self._stop_ids or None)
        compact: Any = {"whitespace_flexible": False}  # else blanks may go on for ever
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=compact)
        except ValueError as error:
            raise CannotReplyError(f"The JSON schema cannot be read: {str(error)[:300]}") from error
        if reason := llguidance.LLMatcher.validate_grammar(grammar, self._read):
            raise CannotReplyError(f"The JSON schema cannot be held to: {reason[:300]}")
        return Grammar(llguidance.LLMatcher(self._read, grammar), self._read.vocab_size)
