"""Prompts to embeddings, through a checkpoint's own tokenizer and UMT5 encoder."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ftfy
import torch
from transformers import PreTrainedTokenizerBase

TextEncoder = Callable[[torch.Tensor, torch.Tensor], Any]
"""ids and mask [B, L] to an object with `last_hidden_state` [B, L, C]: transformers' module, or an engine."""


@dataclass(frozen=True, slots=True)
class TextStates:
    """What transformers' encoder returns, as far as it is read."""

    last_hidden_state: torch.Tensor


def clean_prompt(text: str) -> str:
    """Wan's own cleaning: mend broken Unicode, unescape HTML, collapse white space."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def embed(
    tokenizer: PreTrainedTokenizerBase, encoder: TextEncoder, texts: Sequence[str], length: int, device: torch.device
) -> torch.Tensor:
    """Embeddings [B, length, C]; rows past a text's end are zero, and what is longer is cut."""
    tokens = tokenizer(
        [clean_prompt(text) for text in texts], padding="max_length", max_length=length, truncation=True,
        add_special_tokens=True, return_attention_mask=True, return_tensors="pt",
    ).to(device)
    # One at a time: an engine takes one, and a text is the same alone and among others.
    states = [
        encoder(ids, mask).last_hidden_state
        for ids, mask in zip(tokens.input_ids.split(1), tokens.attention_mask.split(1), strict=True)
    ]
    # Wan was trained on zeros after the last token, not on what the encoder makes of padding.
    return torch.cat(states) * tokens.attention_mask[..., None]
