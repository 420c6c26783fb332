"""One conversation as the language model reads it: token ids, pictures in their places, positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from vl_service.qwen.fast.network import Network, Part


class Seen(Protocol):
    """What is known of pictures: `features.Features`."""

    @property
    def embeddings(self) -> torch.Tensor: ...
    @property
    def grid_thw(self) -> torch.Tensor: ...
    @property
    def deepstack(self) -> tuple[torch.Tensor, ...]: ...
    @property
    def names(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is to be continued. Its last token is a word's: it is read with the first step."""

    marks: np.ndarray[Any, np.dtype[np.int64]]
    """[L] on the CPU, by which prompts are compared: token ids, and of a picture's tokens its number, as -1, -2 …"""
    pictures: tuple[str, ...]
    """Names of the pictures, equal where their features are."""
    ids: torch.Tensor
    """int64 [L], as all tensors here on the model's device."""
    positions: torch.Tensor
    """int64 [3, 1, L]: time, row, column."""
    pictured: torch.Tensor
    """bool [L]."""
    embeddings: torch.Tensor | None = None
    """[tokens of the pictures, C]."""
    deepstack: tuple[torch.Tensor, ...] = ()

    def part(self, network: Network, *, row: int, start: int, donor: int | None) -> Part:
        """All but its first `start` tokens and its last, to be read into a row of the cache."""
        end = len(self.ids) - 1
        x, pictured = F.embedding(self.ids[start:end], network.embedding), self.pictured[start:end]
        before = int((self.marks[:start] < 0).sum())
        if self.embeddings is not None and len(self.embeddings) > before:
            x = x.masked_scatter(pictured[:, None], self.embeddings[before:].to(x.dtype))
        return Part(
            x=x, positions=self.positions[:, :, start:end], row=row, start=start, donor=donor, pictured=pictured,
            deepstack=tuple(level[before:] for level in self.deepstack))


def prompt_of(
    ids: Sequence[int], seen: Seen | None, *, image_token_id: int, merge: int, device: torch.device
) -> Prompt:
    """A conversation with the pictures in `seen`, which have one image token for each of their merged patches."""
    marks = np.array(ids, dtype=np.int64)
    if seen is None:
        positions = torch.arange(len(ids)).expand(3, 1, -1)
        return Prompt(marks=marks, pictures=(), ids=torch.tensor(ids, device=device), positions=positions.to(device),
                      pictured=torch.zeros(len(ids), dtype=torch.bool, device=device))
    pictured = marks == image_token_id
    grids = seen.grid_thw.tolist()
    sizes = [rows * columns // merge**2 for _, rows, columns in grids]
    marks[pictured] = -1 - np.repeat(np.arange(len(sizes)), sizes)
    on_cpu = torch.from_numpy(pictured)
    return Prompt(
        marks=marks, pictures=seen.names, ids=torch.tensor(ids, device=device),
        positions=positions_of(on_cpu, grids, merge).to(device), pictured=on_cpu.to(device),
        embeddings=seen.embeddings, deepstack=seen.deepstack)


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


def common_start(
    marks: np.ndarray[Any, np.dtype[np.int64]], pictures: Sequence[str],
    others: np.ndarray[Any, np.dtype[np.int64]], other_pictures: Sequence[str],
) -> int:
    """How many first tokens two conversations share; a picture is shared whole or not at all."""
    length = min(len(marks), len(others))
    different = np.flatnonzero(marks[:length] != others[:length])
    same = int(different[0]) if len(different) else length
    for number, (one, other) in enumerate(zip(pictures, other_pictures, strict=False)):
        if one != other:
            where = np.flatnonzero(marks[:same] == -1 - number)
            return int(where[0]) if len(where) else same
    return same
