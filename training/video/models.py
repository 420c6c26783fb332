"""The shapes of the embedded video checkpoint: diffusers' and transformers' own classes, smaller numbers."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

Z_DIM = 16
MAX_TEXT_TOKENS = 96
TEXT_DIM = 256
FLOW_SHIFT = 3.0


def new_vae() -> AutoencoderKLWan:
    """Causal VAE, 4x spatial and 4x temporal: 16 channels hold 4 x 4 x 4 pixels."""
    return AutoencoderKLWan(
        base_dim=32, z_dim=Z_DIM, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[True, True],
        scale_factor_spatial=4, latents_mean=[0.0] * Z_DIM, latents_std=[1.0] * Z_DIM,
    )


def new_transformer() -> WanTransformer3DModel:
    """36 channels in: 16 noisy latents, 4 mask, 16 latents of the picture."""
    return WanTransformer3DModel(
        patch_size=(1, 4, 4), num_attention_heads=7, attention_head_dim=64, in_channels=36, out_channels=Z_DIM,
        text_dim=TEXT_DIM, freq_dim=256, ffn_dim=1792, num_layers=8, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=256,
    )


def new_text_encoder(vocab_size: int) -> UMT5EncoderModel:
    """A small UMT5 encoder, trained together with the transformer."""
    return UMT5EncoderModel(UMT5Config(
        vocab_size=vocab_size, d_model=TEXT_DIM, d_kv=64, d_ff=512, num_layers=4, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    ))


def load_vae(folder: str | Path, device: str) -> AutoencoderKLWan:
    """A trained VAE, frozen, in float32."""
    vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32)
    return vae.to(device).eval().requires_grad_(False)


def latent_scale(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents, [1, 16, 1, 1, 1] each."""
    mean, std = torch.tensor(vae.config["latents_mean"]), torch.tensor(vae.config["latents_std"])
    return mean.view(1, -1, 1, 1, 1).to(vae.device), std.view(1, -1, 1, 1, 1).to(vae.device)
