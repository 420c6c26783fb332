"""The VAE's decoder on several ranks, each of which decodes its rows of every frame."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from video_service.layers.wan.bands import Bands
from video_service.layers.wan.fast import FastCodec, Kept
from web.worker.errors import DeviceBroken

if TYPE_CHECKING:  # the first makes this one; the second needs Triton
    from video_service.layers.wan.vae_cuda import FastVaeDecoder
    from video_service.worker.peers.group import PeerGroup


class BandedDecoders:
    """What each peer has: the decoder of the last size."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._kept: Kept[FastVaeDecoder] = Kept(1)

    def __call__(self, size: tuple[int, int], latent_THWC: torch.Tensor, first: bool) -> None:
        from video_service.layers.wan.vae_cuda import FastVaeDecoder

        decoder = self._kept.get(size, lambda: FastVaeDecoder(self._vae, *size, bands=Bands()))
        decoder.frames(latent_THWC, first)


class ParallelCodec(FastCodec):
    """A size whose rows of latents the ranks cannot share evenly is decoded by the first alone."""

    def __init__(self, vae: Any, group: "PeerGroup") -> None:
        super().__init__(vae)
        self._group = group
        self._number = group.load(self, partial(BandedDecoders, vae))

    def decode_levels(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        if len(latents_BCTHW) > 1 or latents_BCTHW.shape[3] % self._group.size:
            yield from super().decode_levels(latents_BCTHW)
            return
        try:
            yield from super().decode_levels(latents_BCTHW)
        except Exception as error:
            raise DeviceBroken("decoding over several devices failed") from error

    def _made(self, height: int, width: int) -> "FastVaeDecoder":
        from video_service.layers.wan.vae_cuda import FastVaeDecoder

        if height % self._group.size:
            return super()._made(height, width)
        told = partial(self._group.decoding, self._number, (height, width))
        return FastVaeDecoder(self._vae, height, width, bands=Bands(), told=told)
