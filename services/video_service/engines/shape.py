"""The shape of a clip that a set of engines renders. Imports no model library."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from contracts.models import FrameRange

GRAPH_FIELDS: Mapping[str, tuple[str, ...]] = {
    "text_encoder": ("text_tokens",),
    "vae_encoder": ("width", "height", "num_frames"),
    "vae_decoder_first": ("width", "height"),
    "vae_decoder_later": ("width", "height"),
}
_WHOLE = ("width", "height", "num_frames", "text_tokens")


def graph_fields(graph: str) -> tuple[str, ...]:
    """What the graph of this name is fixed to; graphs of equal fields are one engine."""
    return GRAPH_FIELDS.get(graph, _WHOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """Pixels, frames and prompt tokens; an engine takes exactly these."""

    width: int
    height: int
    num_frames: int
    text_tokens: int

    def fields(self, graph: str) -> dict[str, int]:
        """What of it the graph is fixed to."""
        return {name: getattr(self, name) for name in graph_fields(graph)}

    @classmethod
    def parse(cls, size: str, num_frames: int, text_tokens: int, rule: FrameRange) -> Self:
        """From `WIDTHxHEIGHT`; raises `ValueError` with what is wrong. More frames than the rule's are allowed."""
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
        if match is None:
            raise ValueError(f"the size {size!r} is not WIDTHxHEIGHT, such as 256x256")
        if num_frames < 1 or (num_frames - rule.minimum) % rule.step:
            raise ValueError(f"{num_frames} frames: the model takes {rule.rule}, such as {rule.default}")
        return cls(width=int(match[1]), height=int(match[2]), num_frames=num_frames, text_tokens=text_tokens)

    @classmethod
    def parse_clip(cls, clip: str, text_tokens: int, rule: FrameRange) -> Self:
        """From `WIDTHxHEIGHTxFRAMES`; raises `ValueError` with what is wrong."""
        match = re.fullmatch(r"(.+)x([1-9]\d{0,3})", clip.strip())
        if match is None or "x" not in match[1]:
            raise ValueError(f"the clip {clip!r} is not WIDTHxHEIGHTxFRAMES, such as 832x480x81")
        return cls.parse(match[1], int(match[2]), text_tokens, rule)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"
