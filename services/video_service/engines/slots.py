"""Engines in the slots of the torch modules: the loop that calls them never knows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from video_service.engines.sessions import Session


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


@dataclass(frozen=True, slots=True)
class TextStates:
    """What transformers' encoder returns, as far as it is read."""

    last_hidden_state: torch.Tensor


class EngineTextEncoder:
    """Called as transformers' UMT5 encoder is."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> TextStates:
        return TextStates(self._session.run({"ids": ids_BL, "mask": mask_BL})["states"])


class EngineCodec:
    """A `Codec` of three graphs. History goes from one run into the next as it came out, without a copy."""

    def __init__(self, encoder: Session, first: Session, later: Session) -> None:
        self._encoder, self._first, self._later = encoder, first, later

    def encode_still(self, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        return self._encoder.run({"picture": picture_BCTHW})["latents"]

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        """As `Codec.decode`; an engine takes one latent frame at a time, whatever `chunk`."""
        history: dict[str, torch.Tensor] = {}
        for index in range(latents_BCTHW.shape[2]):
            latent = latents_BCTHW[:, :, index : index + 1]
            if index == 0:
                results = self._first.run({"latent": latent})
            else:
                results = self._later.run({"latent": latent} | history)
            frames = results.pop("frames")
            history |= {name.replace("_out_", "_"): x for name, x in results.items()}
            if index == 0 and latents_BCTHW.shape[2] > 1:
                history = self._complete(history)
            yield frames

    def _complete(self, written: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Zeros for what the first frame does not write: the temporal upsampling has seen nothing yet."""
        names = [name for name in self._later.input_names if name != "latent"]
        return {name: written[name] if name in written else self._later.zeros(name) for name in names}
