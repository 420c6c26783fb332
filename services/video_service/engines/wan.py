"""The Wan family as graphs: the transformer, the two VAE decoders, the VAE encoder and the text encoder.

Each is a module whose shapes are fixed, so that an exporter meets no branch: per-shape tables are buffers, and what has
to stay in float32 says so in its arithmetic. Weights are shared with the part that a module is made from.
"""

from collections.abc import Mapping

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5EncoderModel

from graphs.graph import Graph
from video_service.engine_store.shape import ClipShape
from video_service.engines.wan_text import TextEncoder
from video_service.engines.wan_transformer import BakedTransformer
from video_service.engines.wan_vae import FirstFrame, LaterFrame, StillEncoder, example_history, export_form


def wan_graphs(
    transformer: WanTransformer3DModel, vae: AutoencoderKLWan, text_encoder: UMT5EncoderModel, shape: ClipShape
) -> list[Graph]:
    """Every graph that renders one clip of `shape`, the small ones first."""
    return [
        text_graph(text_encoder, shape), encoder_graph(vae, shape), *decoder_graphs(vae, shape),
        transformer_graph(transformer, vae.config, shape),
    ]


def transformer_graph(
    transformer: WanTransformer3DModel, vae_config: Mapping[str, int], shape: ClipShape, name: str = "transformer"
) -> Graph:
    """One denoising step for one clip. An expert of a family with several is a graph of its own, under another name."""
    scale = vae_config["scale_factor_spatial"]
    latents = (1, transformer.config["in_channels"], shape.latent_frames, shape.height // scale, shape.width // scale)
    dtype = transformer.patch_embedding.weight.dtype
    inputs = {
        "latents": torch.randn(latents).to(dtype),
        "timestep": torch.tensor([500.0]),
        "text": torch.randn(1, shape.text_tokens, transformer.config["text_dim"]).to(dtype),
    }
    return Graph(
        name=name, module=BakedTransformer(transformer, inputs["latents"]), inputs=inputs, outputs=("velocity",),
    )


def encoder_graph(vae: AutoencoderKLWan, shape: ClipShape) -> Graph:
    """The condition's latents of one picture, as the service computes them: a picture, then zeros."""
    picture = torch.rand(1, 3, 1, shape.height, shape.width) * 2 - 1
    return Graph(
        name="vae_encoder", module=StillEncoder(export_form(vae), shape.num_frames),
        inputs={"picture": picture.to(vae.dtype)}, outputs=("latents",),
    )


def decoder_graphs(vae: AutoencoderKLWan, shape: ClipShape) -> list[Graph]:
    """The first latent frame, and any later one: history in, history out."""
    vae, scale = export_form(vae), vae.config["scale_factor_spatial"]
    latent = torch.randn(1, vae.config["z_dim"], 1, shape.height // scale, shape.width // scale).to(vae.dtype)
    history = example_history(vae, latent)
    first, later = FirstFrame(vae, history), LaterFrame(vae)
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
