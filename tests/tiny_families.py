"""Random checkpoints of the families that the service exports and does not serve, small enough to export in seconds.

    from tests.tiny_families import save_tiny_family, tiny_parts
    parts = tiny_parts("wan2.2-ti2v")                # diffusers' own modules
    folder = save_tiny_family(tmp_path, "i2vgen-xl")   # the same in the hub layout
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from transformers import UMT5Config, UMT5EncoderModel

INDEXES: dict[str, dict[str, Any]] = {
    "wan2.2-experts": {
        "_class_name": "WanImageToVideoPipeline", "boundary_ratio": 0.9,
        "transformer_2": ["diffusers", "WanTransformer3DModel"],
    },
    "wan2.2-ti2v": {"_class_name": "WanPipeline", "expand_timesteps": True, "transformer_2": [None, None]},
    "i2vgen-xl": {"_class_name": "I2VGenXLPipeline", "unet": ["diffusers", "I2VGenXLUNet"]},
}


def tiny_parts(family: str, *, shallow: bool = False) -> dict[str, Any]:
    """The parts of one family by folder, of equal weights each time.

    Where they are `shallow`, every kind of layer is there once or so, for what is paid by the layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {"wan2.2-experts": _experts, "wan2.2-ti2v": _ti2v, "i2vgen-xl": _i2vgen}[family](shallow)
    for part in parts.values():
        part.eval().requires_grad_(False)
    return parts


def save_tiny_family(folder: Path, family: str, *, shallow: bool = False) -> Path:
    """Write the checkpoint into `folder` and return it."""
    for name, part in tiny_parts(family, shallow=shallow).items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps(INDEXES[family]), encoding="utf-8")
    return folder


def _experts(shallow: bool) -> dict[str, Any]:
    """Wan2.2 I2V-A14B: Wan2.1's VAE, 36 channels, two transformers."""
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True],
    )
    return {"text_encoder": _text_encoder(), "vae": vae, "transformer": _transformer(36, 16, shallow),
            "transformer_2": _transformer(36, 16, shallow)}


def _ti2v(shallow: bool) -> dict[str, Any]:
    """Wan2.2 TI2V-5B: residual VAE of 2x2 patches at 16x, here with 4 of its 48 channels."""
    widths, blocks = ([1, 1, 1, 1], 0) if shallow else ([1, 2, 4, 4], 1)  # without blocks its encoder changes no widths
    vae = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=widths, num_res_blocks=blocks,
        temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )
    return {"text_encoder": _text_encoder(), "vae": vae, "transformer": _transformer(4, 4, shallow)}


def _i2vgen(_: bool) -> dict[str, Any]:
    # The blocks in the middle attend to the text, so those before and after them need not: a third of the nodes less.
    unet = I2VGenXLUNet(
        block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
        attention_head_dim=16, down_block_types=("DownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "UpBlock3D"),
    )
    return {"unet": unet}


def _text_encoder() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=258, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2))


def _transformer(in_channels: int, out_channels: int, shallow: bool) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=in_channels,
        out_channels=out_channels, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=1 if shallow else 2,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
    )
