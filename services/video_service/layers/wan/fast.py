"""Wan's modules of a loaded checkpoint in their fast forms, called as the plain ones are.

The codec on a CUDA device in bfloat16, where a size that does not fit and a batch of several clips run as before; the
transformer on any device.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from video_service.layers.attention.ulysses import Ulysses
from video_service.layers.wan.codec import Codec, TorchCodec
from video_service.layers.wan.transformer import Clip, ClipSteps, FastWanTransformer, Sparse

if TYPE_CHECKING:  # they need Triton, which comes with CUDA builds of torch alone
    from video_service.layers.wan.still_cuda import FastStillEncoder
    from video_service.layers.wan.vae_cuda import FastVaeDecoder

_SIZES_KEPT = 2  # CUDA graphs of a size hold its activations: gigabytes at 720p
_TEXTS_KEPT = 2  # a prompt and its negative

T = TypeVar("T")


class FastTransformer:
    """diffusers' transformer in the form of `wan_transformer`; `times` are read on the CPU, which waits for nothing."""

    def __init__(
        self, transformer: WanTransformer3DModel, *, fp8: bool = False, sparse: Sparse | None = None,
        split: Ulysses | None = None,
    ) -> None:
        """With `split` all ranks must call. Raises `NotImplementedError` for what `wan_transformer.why_not` names."""
        self.module = transformer
        self.config: Any = transformer.config
        self._fp8, self._sparse = fp8, sparse
        self._network = FastWanTransformer(transformer, fp8=fp8, sparse=sparse, split=split)
        self._steps: Kept[ClipSteps] = Kept(_SIZES_KEPT)
        self._texts: list[_Text] = []

    def like(self, transformer: WanTransformer3DModel) -> "FastTransformer":
        """Another transformer of the same kind in the same form."""
        return FastTransformer(transformer, fp8=self._fp8, sparse=self._sparse)

    def let_go(self) -> None:
        """Of what it keeps from call to call: graphs and prompts."""
        self._steps, self._texts = Kept(_SIZES_KEPT), []

    def __call__(
        self, latents_BCTHW: torch.Tensor, times_B: torch.Tensor, text_BLC: torch.Tensor,
        seen_BLC: torch.Tensor | None = None, *, return_dict: bool,
    ) -> tuple[torch.Tensor]:
        assert not return_dict
        return (self._velocity(latents_BCTHW, times_B, text_BLC, seen_BLC, alone=False),)

    def both(
        self, latents_BCTHW: torch.Tensor, times_B: torch.Tensor, text_BLC: torch.Tensor, negative_BLC: torch.Tensor,
        seen_BLC: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Guidance's two: with the text, and with the negative one."""
        return (self(latents_BCTHW, times_B, text_BLC, seen_BLC, return_dict=False)[0],
                self(latents_BCTHW, times_B, negative_BLC, seen_BLC, return_dict=False)[0])

    def _velocity(
        self, latents_BCTHW: torch.Tensor, times_B: torch.Tensor, text_BLC: torch.Tensor,
        seen_BLC: torch.Tensor | None, *, alone: bool,
    ) -> torch.Tensor:
        clip = self._clip(latents_BCTHW.shape, text_BLC, seen_BLC, alone=alone)
        steps = self._steps.get((latents_BCTHW.shape, seen_BLC is None, alone), lambda: self._network.graphed(clip))
        steps.restart(clip)
        modulation, head = self._network.modulate(times_B[:1].tolist(), text_BLC)
        # The graph's memory is written again by the next call, which guidance makes before it uses this one's.
        return steps.at(latents_BCTHW, modulation[0], head[0]).clone()

    def _clip(self, shape: torch.Size, text_BLC: torch.Tensor, seen_BLC: torch.Tensor | None, *, alone: bool) -> Clip:
        for known in self._texts:
            if (known.text is text_BLC and known.seen is seen_BLC and known.clip.shape == shape
                    and known.alone == alone):
                return known.clip
        clip = self._network.begin(shape, text_BLC, (), seen_BLC, alone=alone)
        self._texts = [*self._texts[1 - _TEXTS_KEPT :], _Text(text=text_BLC, seen=seen_BLC, alone=alone, clip=clip)]
        return clip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """Held with its tensors, so that no others can come to lie where these did."""

    text: torch.Tensor
    seen: torch.Tensor | None
    alone: bool
    clip: Clip


class FastCodec(Codec):
    """A `Codec` whose decoder and encoder of a still run as CUDA graphs, one set for each size."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self._vae = vae
        self._plain = TorchCodec(vae)
        self._decoders: Kept[FastVaeDecoder] = Kept(1)
        self._encoders: Kept[FastStillEncoder] = Kept(_SIZES_KEPT)

    def let_go(self) -> None:
        """Of the decoder's graphs."""
        self._decoders = Kept(1)

    def encode_still(self, picture_BCTHW: torch.Tensor, num_frames: int) -> torch.Tensor:
        from video_service.layers.wan.still_cuda import FastStillEncoder, why_not

        if num_frames == 1 or len(picture_BCTHW) > 1 or why_not(self._vae) is not None:
            return self._plain.encode_still(picture_BCTHW, num_frames)
        height, width = picture_BCTHW.shape[3:]
        encoder = self._encoders.get(
            (height, width, num_frames), lambda: FastStillEncoder(self._vae, height, width, num_frames))
        return encoder(picture_BCTHW).clone()  # the graph's memory is written again by the next still

    def decode(self, latents_BCTHW: torch.Tensor, chunk: int) -> Iterator[torch.Tensor]:
        return self._plain.decode(latents_BCTHW, chunk)

    def decode_levels(self, latents_BCTHW: torch.Tensor) -> Iterator[torch.Tensor]:
        """On the CPU, a latent frame behind what the device decodes."""
        if len(latents_BCTHW) > 1:
            yield from self._plain.decode_levels(latents_BCTHW)
            return
        height, width = latents_BCTHW.shape[3:]
        decoder = self._decoders.get((height, width), lambda: self._made(height, width))
        for frames_THWC in decoder.decode(latents_BCTHW):
            yield frames_THWC[None]

    def _made(self, height: int, width: int) -> "FastVaeDecoder":
        from video_service.layers.wan.vae_cuda import FastVaeDecoder

        return FastVaeDecoder(self._vae, height, width)


class Kept(Generic[T]):
    """The last few of what is made for a key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._made:
            while len(self._made) >= self._most:
                self._made.popitem(last=False)  # before the next is made: both may not fit
            self._made[key] = make()
        self._made.move_to_end(key)
        return self._made[key]
