"""Engines in the slots of the torch modules: the loop that calls them never knows."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from engines.run.session import Session
from video_service.layers.umt5 import TextStates
from video_service.layers.wan.codec import Codec


class EngineTransformer:
    """Called as diffusers' transformer is."""

    def __init__(self, session: Session, config: Mapping[str, Any]) -> None:
        self._session = session
        self.config = config

    def __call__(
        self, latents_BCTHW: torch.Tensor, timestep_B: torch.Tensor, text_BLC: torch.Tensor, *, return_dict: bool
    ) -> tuple[torch.Tensor, ...]:
        assert not return_dict
        inputs = {"latents": latents_BCTHW, "timestep": timestep_B, "text": text_BLC}
        return (self._session.run(inputs)["velocity"],)


class EngineTextEncoder:
    """Called as transformers' UMT5 encoder is."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> TextStates:
        return TextStates(self._session.run({"ids": ids_BL, "mask": mask_BL})["states"])


class EngineCodec(Codec):
    """A `Codec` of three graphs. Two sets of memory hold the decoder's history in turn: one is read while the other is
    written, so nothing is copied and nothing is allocated from frame to frame."""

    one_size = True

    def __init__(self, encoder: Session, first: Session, later: Session) -> None:
        self._encoder, self._first, self._later = encoder, first, later

    def encode_still(self, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        return self._encoder.run({"picture": picture_BCTHW})["latents"]

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        """As `Codec.decode`; an engine takes one latent frame at a time, whatever `chunk`."""
        first, *later = latents_BCTHW.split(1, dim=2)
        if not later:
            yield self._first.run({"latent": first})["frames"]
            return
        # Zeros are the history of a layer that the first frame does not reach: the temporal upsampling.
        ping, pong = self._history(), self._history()
        yield self._first.run({"latent": first}, _as_outputs(ping, self._first))["frames"]
        for latent in later:
            yield self._later.run({"latent": latent} | ping, _as_outputs(pong, self._later))["frames"]
            ping, pong = pong, ping

    def _history(self) -> dict[str, torch.Tensor]:
        return {name: self._later.zeros(name) for name in self._later.input_names if name != "latent"}


def _as_outputs(history: Mapping[str, torch.Tensor], session: Session) -> dict[str, torch.Tensor]:
    """The memory under the names by which `session` writes it, as far as it does."""
    named = {name.replace("history_", "history_out_"): x for name, x in history.items()}
    return {name: x for name, x in named.items() if name in session.output_names}
