"""The Wan families as graphs: transformers, the two VAE decoders, the VAE encoder and the text encoder.

Each is a module whose shapes are fixed, so that an exporter meets no branch: per-shape tables are buffers, and what has
to stay in float32 says so in its arithmetic. Weights are shared with the part that a module is made from.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5EncoderModel

from engines.export.graph import Graph
from video_service.engines.shape import ClipShape
from video_service.layers.umt5_graph import TextEncoder
from video_service.layers.wan.baked import BakedTransformer
from video_service.layers.wan.codec import latent_frames
from video_service.layers.wan.vae import WanVaeDecoder
from video_service.layers.wan.vae_graphs import (
    FirstFrame,
    PictureEncoder,
    StillEncoder,
    example_history,
    export_form,
)


def wan_graphs(parts: Mapping[str, Any], shape: ClipShape) -> list[Graph]:
    """All that renders a clip of Wan2.1, or of Wan2.2 where `parts` has its second expert; the small ones first."""
    vae = parts["vae"]
    return [
        text_graph(parts["text_encoder"], shape), encoder_graph(vae, shape), *decoder_graphs(vae, shape),
        *(
            transformer_graph(parts[name], vae.config, shape, name)
            for name in ("transformer", "transformer_2") if name in parts
        ),
    ]


def wan_ti2v_graphs(parts: Mapping[str, Any], shape: ClipShape) -> list[Graph]:
    """Wan2.2 TI2V-5B: a picture is the clip's first latent frame, at time 0 while the others are at the step's."""
    vae = parts["vae"]
    return [
        text_graph(parts["text_encoder"], shape), picture_graph(vae, shape), *decoder_graphs(vae, shape),
        transformer_graph(parts["transformer"], vae.config, shape, time_by_frame=True),
    ]


def transformer_graph(
    transformer: WanTransformer3DModel, vae_config: Mapping[str, int], shape: ClipShape, name: str = "transformer",
    *, time_by_frame: bool = False,
) -> Graph:
    """One denoising step for one clip. An expert of a family with several is a graph of its own, under another name."""
    scale = vae_config["scale_factor_spatial"]
    frames = latent_frames(shape.num_frames)
    latents = (1, transformer.config["in_channels"], frames, shape.height // scale, shape.width // scale)
    dtype = transformer.patch_embedding.weight.dtype
    inputs = {
        "latents": torch.randn(latents).to(dtype),
        "timestep": torch.full((1, frames), 500.0) if time_by_frame else torch.tensor([500.0]),
        "text": torch.randn(1, shape.text_tokens, transformer.config["text_dim"]).to(dtype),
    }
    if time_by_frame:
        inputs["timestep"][:, 0] = 0
    return Graph(
        name=name, module=BakedTransformer(transformer, inputs["latents"]), inputs=inputs, outputs=("velocity",),
        eight_bits="body.blocks.",
    )


def encoder_graph(vae: AutoencoderKLWan, shape: ClipShape) -> Graph:
    """The condition's latents of one picture, as the service computes them: a picture, then zeros."""
    return Graph(
        name="vae_encoder", module=StillEncoder(export_form(vae), shape.num_frames),
        inputs={"picture": _picture(vae, shape)}, outputs=("latents",),
    )


def picture_graph(vae: AutoencoderKLWan, shape: ClipShape) -> Graph:
    """The latents of one picture alone."""
    return Graph(
        name="vae_encoder", module=PictureEncoder(export_form(vae)), inputs={"picture": _picture(vae, shape)},
        outputs=("latents",),
    )


def _picture(vae: AutoencoderKLWan, shape: ClipShape) -> torch.Tensor:
    return (torch.rand(1, 3, 1, shape.height, shape.width) * 2 - 1).to(vae.dtype)


def decoder_graphs(vae: AutoencoderKLWan, shape: ClipShape) -> list[Graph]:
    """The first latent frame, and any later one: history in, history out."""
    vae, scale = export_form(vae), vae.config["scale_factor_spatial"]
    latent = torch.randn(1, vae.config["z_dim"], 1, shape.height // scale, shape.width // scale).to(vae.dtype)
    history = example_history(vae, latent)
    first, later = FirstFrame(vae, latent), WanVaeDecoder(vae)
    return [
        Graph(
            name="vae_decoder_first", module=first, inputs={"latent": latent},
            outputs=("frames", *(f"history_out_{slot}" for slot in first.written)),
        ),
        Graph(
            name="vae_decoder_later", module=later,
            inputs={"latent": latent} | {f"history_{slot}": x for slot, x in enumerate(history)},
            outputs=("frames", *(f"history_out_{slot}" for slot in range(len(history)))),
        ),
    ]


def text_graph(text_encoder: UMT5EncoderModel, shape: ClipShape) -> Graph:
    """Token ids and their mask to states."""
    tokens = shape.text_tokens
    mask = (torch.arange(tokens) < max(1, tokens // 2)).long()[None]
    ids = torch.randint(2, text_encoder.config.vocab_size, (1, tokens)) * mask
    return Graph(
        name="text_encoder", module=TextEncoder(text_encoder, tokens), inputs={"ids": ids, "mask": mask},
        outputs=("states",),
    )
