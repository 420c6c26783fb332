"""Prompt to embeddings, through the checkpoint's own tokenizer and UMT5 encoder."""

import html
from dataclasses import dataclass

import ftfy
import torch

from video_service.weights.load import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCondition:
    """Embeddings [1, max_sequence_length, text_dim] in the model's dtype; rows past the prompt's end are zero."""

    prompt_BLC: torch.Tensor
    negative_BLC: torch.Tensor | None
    """Set where guidance needs it."""


def encode_text(model: LoadedModel, prompt: str, negative_prompt: str | None) -> TextCondition:
    """Embed the prompt, and the negative prompt unless it is None."""
    negative = None if negative_prompt is None else _embed(model, negative_prompt)
    return TextCondition(prompt_BLC=_embed(model, prompt), negative_BLC=negative)


def clean_prompt(text: str) -> str:
    """Wan's own cleaning: mend broken Unicode, unescape HTML, collapse white space."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _embed(model: LoadedModel, text: str) -> torch.Tensor:
    length = model.source.max_sequence_length
    tokens = model.tokenizer(
        [clean_prompt(text)], padding="max_length", max_length=length, truncation=True, add_special_tokens=True,
        return_attention_mask=True, return_tensors="pt",
    ).to(model.device)
    states_BLC = model.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    # Wan was trained on zeros after the last token, not on what the encoder makes of padding.
    return (states_BLC * tokens.attention_mask[..., None]).to(model.dtype)
