"""The shape of a clip that a set of engines renders. Imports no model library."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from video_service.weights.card import TEMPORAL_SCALE

GRAPH_FIELDS: Mapping[str, tuple[str, ...]] = {
    "text_encoder": ("text_tokens",),
    "vae_encoder": ("width", "height", "num_frames"),
    "vae_decoder_first": ("width", "height"),
    "vae_decoder_later": ("width", "height"),
    "transformer": ("width", "height", "num_frames", "text_tokens"),
    "transformer_2": ("width", "height", "num_frames", "text_tokens"),
    "unet": ("width", "height", "num_frames", "text_tokens"),
}
"""What each graph of a clip is fixed to; graphs of equal fields are one engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipShape:
    """Pixels, frames (4k+1) and prompt tokens; an engine takes exactly these."""

    width: int
    height: int
    num_frames: int
    text_tokens: int

    @property
    def latent_frames(self) -> int:
        return (self.num_frames - 1) // TEMPORAL_SCALE + 1

    def fields(self, graph: str) -> dict[str, int]:
        """What of it the graph is fixed to."""
        return {name: getattr(self, name) for name in GRAPH_FIELDS[graph]}

    @classmethod
    def parse(cls, size: str, num_frames: int, text_tokens: int, temporal_scale: int = TEMPORAL_SCALE) -> Self:
        """From `WIDTHxHEIGHT`; raises `ValueError` with what is wrong."""
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", size)
        if match is None:
            raise ValueError(f"the size {size!r} is not WIDTHxHEIGHT, such as 256x256")
        if num_frames < 1 or (num_frames - 1) % temporal_scale:
            raise ValueError(f"{num_frames} frames: the VAE takes {temporal_scale}k+1, such as 17")
        return cls(width=int(match[1]), height=int(match[2]), num_frames=num_frames, text_tokens=text_tokens)

    @classmethod
    def parse_clip(cls, clip: str, text_tokens: int) -> Self:
        """From `WIDTHxHEIGHTxFRAMES`; raises `ValueError` with what is wrong."""
        match = re.fullmatch(r"(.+)x([1-9]\d{0,3})", clip.strip())
        if match is None or "x" not in match[1]:
            raise ValueError(f"the clip {clip!r} is not WIDTHxHEIGHTxFRAMES, such as 832x480x81")
        return cls.parse(match[1], int(match[2]), text_tokens)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"
