"""A picture through a Qwen-VL checkpoint's vision tower, in torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.fast.beside import beside
from vl_service.qwen.fast.tower import FastTower
from vl_service.qwen.vision.features import NEVER, Features
from vl_service.qwen.vision.patches import patches_of
from vl_service.qwen.vision.tower import Tower


class TorchVision:
    """The tower as it was loaded, or its fast form."""

    def __init__(self, tower: Tower, *, reason: str = "", fast: FastTower | None = None) -> None:
        self.tower, self._fast = tower, fast
        self.engine, self.reason = f"torch-{tower.device.type}", reason
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tower")

    def features_of(self, picture: DecodedImage, deadline: Deadline = NEVER) -> Features:
        """See `features.Vision`. Pictures are made patches of at one time, and seen one after another."""
        with beside(self.tower.device):
            pixels, grid_thw = self.patches(picture)
        return self.on_its_thread(self.encode, pixels, grid_thw)

    def on_its_thread(
        self, see: Callable[[torch.Tensor, torch.Tensor], Features], pixels_NP: torch.Tensor, grid_thw: torch.Tensor
    ) -> Features:
        """Where the tower computes, whoever asks: cuDNN plans the attention of each shape once a thread."""
        return self._thread.submit(see, pixels_NP, grid_thw).result()

    def patches(self, picture: DecodedImage, *, share: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture's patches [N, P] and its grid [1, 3], of `share` of the largest area at most."""
        limits = self.tower.size
        longest = int(limits["longest_edge"] * share)
        size = {"shortest_edge": min(limits["shortest_edge"], longest), "longest_edge": longest}
        return patches_of(picture.rgb, self.tower.image_processor, size, self.tower.device)

    @torch.inference_mode()
    def encode(self, pixels_NP: torch.Tensor, grid_thw: torch.Tensor) -> Features:
        """On the tower's thread."""
        tower = self.tower
        with beside(tower.device):
            pixels_NP = pixels_NP.to(tower.device, tower.dtype)
            if self._fast is not None:
                return self.made(self._fast(pixels_NP, grid_thw), grid_thw)
            seen = tower.module(pixels_NP, grid_thw=grid_thw.to(tower.device))
            return self.made(seen.pooler_output, grid_thw, getattr(seen, "deepstack_features", None) or ())

    def made(
        self, embeddings_NC: torch.Tensor, grid_thw: torch.Tensor, deepstack: Sequence[torch.Tensor] = ()
    ) -> Features:
        """Features of this tower."""
        return Features(embeddings=embeddings_NC, grid_thw=grid_thw.cpu(), deepstack=tuple(deepstack),
                        revision=self.tower.revision, processor=self.tower.expected.processor)
