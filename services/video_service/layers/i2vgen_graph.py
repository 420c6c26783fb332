"""I2VGen-XL's UNet as a graph: one denoising step of one clip."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from diffusers.models.upsampling import Upsample2D
from torch import nn

from engines.export.copies import with_float32_norms
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.layers.wan.vae_graphs import twice_as_large

_SCALE = 8  # of its image VAE, which keeps every frame
_INPUTS = ("latents", "timestep", "fps", "image_latents", "image_embeddings", "text")


def i2vgen_graphs(parts: Mapping[str, Any], shape: ClipShape) -> list[Graph]:
    """The UNet alone: its VAE and text encoder work on pictures and words once a clip."""
    unet: I2VGenXLUNet = parts["unet"]
    size = (shape.height // _SCALE, shape.width // _SCALE)
    clip, width = (1, unet.config["in_channels"], shape.num_frames, *size), unet.config["cross_attention_dim"]
    dtype = unet.conv_in.weight.dtype
    examples = (
        torch.randn(clip).to(dtype), torch.tensor([500.0]), torch.tensor([16.0]), torch.randn(clip).to(dtype),
        torch.randn(1, width).to(dtype), torch.randn(1, shape.text_tokens, width).to(dtype),
    )
    inputs: dict[str, torch.Tensor] = dict(zip(_INPUTS, examples, strict=True))
    return [Graph(name="unet", module=Denoiser(unet, *size), inputs=inputs, outputs=("velocity",))]


class Denoiser(nn.Module):
    """latents and image_latents [1, 4, F, h, w], timestep and fps [1] float32, image_embeddings [1, C], text [1, L, C].

    Returns the UNet's prediction [1, 4, F, h, w]. Norms and the sinusoids of both times are float32.
    """

    def __init__(self, unet: I2VGenXLUNet, height: int, width: int) -> None:
        super().__init__()
        self.unet: Any = with_float32_norms(unet)
        for module in self.unet.modules():
            if isinstance(module, Upsample2D):
                module.__class__ = CopyingUpsample2D
        context = self.unet.image_latents_context_embedding
        for index, layer in enumerate(context):
            if isinstance(layer, nn.AdaptiveAvgPool2d):
                context[index] = FixedPool(height, width, layer.output_size)

    def forward(
        self, latents: torch.Tensor, timestep: torch.Tensor, fps: torch.Tensor, image_latents: torch.Tensor,
        image_embeddings: torch.Tensor, text: torch.Tensor,
    ) -> torch.Tensor:
        return self.unet(latents, timestep, fps, image_latents, image_embeddings, text, return_dict=False)[0]


class EngineUNet:
    """An engine of this graph, called as diffusers' UNet is."""

    def __init__(self, session: Session, dtype: torch.dtype) -> None:
        self._session = session
        self._dtype = dtype

    def __call__(
        self, latents: torch.Tensor, timestep: torch.Tensor, fps: torch.Tensor, image_latents: torch.Tensor,
        image_embeddings: torch.Tensor, text: torch.Tensor, *, return_dict: bool,
    ) -> tuple[torch.Tensor, ...]:
        assert not return_dict
        given = (latents, timestep, fps, image_latents, image_embeddings, text)
        dtypes = {"timestep": torch.float32, "fps": torch.float32}
        inputs = {name: x.to(dtypes.get(name, self._dtype)) for name, x in zip(_INPUTS, given, strict=True)}
        return (self._session.run(inputs)["velocity"].to(latents.dtype),)


class CopyingUpsample2D(Upsample2D):
    """Nearest neighbours at scale 2 as copies: TensorRT's Resize takes no bfloat16."""

    def forward(
        self, hidden_states: torch.Tensor, output_size: Any = None, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        height, width = hidden_states.shape[-2:]
        if output_size is not None and tuple(output_size) != (2 * height, 2 * width):
            # A side that no layer halves evenly: cut what doubling made too much.
            return self._convolved(twice_as_large(hidden_states)[:, :, : output_size[0], : output_size[1]])
        return self._convolved(twice_as_large(hidden_states))

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        convolution: Any = self.conv if self.name == "conv" else self.Conv2d_0
        return convolution(x) if self.use_conv else x


class FixedPool(nn.Module):
    """Adaptive average pooling of one size as two products: exporters know it only where the sides divide."""

    def __init__(self, height: int, width: int, output: Any) -> None:
        super().__init__()
        rows, columns = output
        self.rows = nn.Buffer(F.adaptive_avg_pool1d(torch.eye(height), rows).T.contiguous())
        self.columns = nn.Buffer(F.adaptive_avg_pool1d(torch.eye(width), columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.rows @ x.float() @ self.columns).to(x.dtype)
