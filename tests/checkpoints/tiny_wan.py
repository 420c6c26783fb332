"""A Wan checkpoint of random weights, small enough to render in about a second, saved in the hub layout.

    from tests.checkpoints.tiny_wan import save_tiny_wan
    folder = save_tiny_wan(tmp_path / "wan")                       # ours: stillmotion.json, 4x VAE, i2v + t2v
    folder = save_tiny_wan(tmp_path / "wan", task="t2v", card=None, vae_scale=8)   # an ordinary Wan2.1 T2V
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from tests.checkpoints.tiny_wan_card import TINY_CARD


def save_tiny_wan(
    folder: Path,
    *,
    task: Literal["i2v", "t2v"] = "i2v",
    vae_scale: Literal[4, 8] = 4,
    card: dict[str, Any] | None = TINY_CARD,
    seed: int = 0,
    shallow: bool = False,
) -> Path:
    """Write the checkpoint into `folder` and return it; equal arguments give equal weights.

    One that is `shallow` has every kind of layer once or so, for what is paid by the layer, such as an export.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "tokenizer": tiny_tokenizer(), "text_encoder": _text_encoder(), "vae": _vae(vae_scale, shallow),
            "transformer": _transformer(task, vae_scale, 1 if shallow else 2),
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        }
    pipeline = WanImageToVideoPipeline if task == "i2v" else WanPipeline
    pipeline(**parts).save_pretrained(folder)
    if card is not None:
        (folder / "stillmotion.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def tiny_tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    """Bytes as tokens, with `</s>` at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", **settings)


def _text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(vocab_size=258, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    return UMT5EncoderModel(config).eval()


def _vae(scale: int, shallow: bool) -> AutoencoderKLWan:
    shape: dict[str, Any]
    if scale == 4:
        shape = {"dim_mult": [1, 2, 4], "temperal_downsample": [True, True], "scale_factor_spatial": 4}
    else:
        shape = {"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True], "scale_factor_spatial": 8}
    if shallow:  # without blocks its encoder changes no widths
        shape["dim_mult"] = [1] * len(shape["dim_mult"])
    return AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=0 if shallow else 1, **shape).eval()


def _transformer(task: str, vae_scale: int, layers: int) -> WanTransformer3DModel:
    patch = 16 // vae_scale  # 16 pixels a token side either way
    return WanTransformer3DModel(
        patch_size=(1, patch, patch), num_attention_heads=2, attention_head_dim=16,
        in_channels=36 if task == "i2v" else 16, out_channels=16, text_dim=32, freq_dim=32, ffn_dim=64,
        num_layers=layers, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
    ).eval()
