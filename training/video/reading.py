"""A second task for the text encoder: tell from a prompt alone which motions it asks for, and how fast.

A step shows the transformer some dozen prompts, each with a clip that takes milliseconds to learn from; the same step
can read hundreds of prompts without one. The linear head that answers is thrown away.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from training.video.models import MAX_TEXT_TOKENS, TEXT_DIM
from training.video.scenes import MOTIONS, SPEEDS, Motions


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Prompts and what they ask for: `tokens` [N, 96] ids, `motions` [N, 28] 0 or 1, `speeds` [N] indices."""

    tokens: Tensor
    motions: Tensor
    speeds: Tensor


def tokenize(tokenizer: PreTrainedTokenizerFast, prompts: list[str], device: str) -> Tensor:
    """Ids [N, 96], padded with 0 and cut."""
    ids = tokenizer(prompts, padding="max_length", max_length=MAX_TEXT_TOKENS, truncation=True, return_tensors="pt")
    return ids.input_ids.to(device)


def readings(
    asked: list[tuple[str, Motions, str]], tokenizer: PreTrainedTokenizerFast, device: str
) -> Readings:
    """Of (prompt, motions, speed)."""
    named = torch.tensor([[name in motions for name in MOTIONS] for _, motions, _ in asked], dtype=torch.float32)
    return Readings(
        tokens=tokenize(tokenizer, [text for text, _, _ in asked], device), motions=named.to(device),
        speeds=torch.tensor([SPEEDS.index(speed) for _, _, speed in asked], device=device),
    )


class Reader(nn.Module):
    """Linear head on the mean of a text's states."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(TEXT_DIM, len(MOTIONS) + len(SPEEDS))

    def forward(self, text_BLC: Tensor, attention_BL: Tensor, motions_BM: Tensor, speeds_B: Tensor) -> Tensor:
        """Binary cross-entropy summed over the motions, plus cross-entropy of the speed; mean over the texts."""
        logits = self.head(mean_state(text_BLC, attention_BL))
        motions, speeds = logits.split([len(MOTIONS), len(SPEEDS)], dim=1)
        asked = F.binary_cross_entropy_with_logits(motions, motions_BM, reduction="none").sum(1).mean()
        return asked + F.cross_entropy(speeds, speeds_B)


def mean_state(text_BLC: Tensor, attention_BL: Tensor) -> Tensor:
    """Mean over a text's own tokens [B, C]."""
    weights = attention_BL.to(text_BLC.dtype).unsqueeze(-1)
    return ((text_BLC * weights).sum(1) / weights.sum(1).clamp(min=1)).float()


def carried_over(old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast, table_VC: Tensor) -> Tensor:
    """The token table of `old` for the tokens of `new`: the same token's row, else the mean of its parts' rows."""
    known = old.get_vocab()
    rows = torch.empty(len(new), table_VC.shape[1], dtype=table_VC.dtype)
    for token, index in new.get_vocab().items():
        parts = [known[token]] if token in known else old(
            new.convert_tokens_to_string([token]).strip(), add_special_tokens=False).input_ids
        rows[index] = table_VC[parts].mean(0) if parts else table_VC.mean(0)
    return rows
