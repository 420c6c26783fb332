"""Latents to frames, a chunk at a time, so that writing starts while later frames are still latents."""

from collections.abc import Iterator

import numpy as np
import torch

from video_service.render.conditioning import latent_statistics
from video_service.weights.load import LoadedModel


def decode_frames(model: LoadedModel, latents_BCTHW: torch.Tensor, chunk: int = 1) -> Iterator[np.ndarray]:
    """Decode normalised latents [1, z_dim, k + 1, h, w] and yield uint8 frames [T, H, W, 3] in order.

    The first yield has one frame (the still), each later one 4 for each of up to `chunk` latent frames. The decoder is
    causal and carries its history from chunk to chunk, so the chunk length changes speed and memory, not the frames.
    """
    for frames_BCTHW in decode_chunks(model, latents_BCTHW, chunk):
        levels = ((frames_BCTHW[0].float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
        yield levels.permute(1, 2, 3, 0).cpu().numpy()


def decode_chunks(model: LoadedModel, latents_BCTHW: torch.Tensor, chunk: int = 1) -> Iterator[torch.Tensor]:
    """As `decode_frames`, but unclamped floats [1, 3, T, H, W], about -1 to 1, in the VAE's dtype."""
    mean, std = latent_statistics(model)
    yield from model.codec.decode((latents_BCTHW.float() * std + mean).to(model.vae_dtype), chunk)
