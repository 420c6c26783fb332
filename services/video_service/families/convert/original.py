"""The parts of a Wan as its authors publish them, beside the transformer: text encoder, VAE, CLIP's vision tower.

Sources: `wan/modules/{t5,vae,clip}.py` of https://github.com/Wan-Video/Wan2.1. The VAE's names are diffusers' own work.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from video_service.families.convert.files import NotConvertible, Weights, read_tensors, refuse_rest, take
from video_service.families.convert.folder import (
    DIFFUSERS_WEIGHTS,
    TRANSFORMERS_WEIGHTS,
    link_part,
    write_json,
    write_part,
)

_CLIP_HEAD_DIM = 80  # of ViT-H/14; no weight's shape says it
_SHIFT = 5.0  # the authors' for what has none of its own in its family
_TEXT_LAYER = {
    "norm1": "layer.0.layer_norm", "norm2": "layer.1.layer_norm", "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1", "ffn.fc2": "layer.1.DenseReluDense.wo",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
} | {f"attn.{name}": f"layer.0.SelfAttention.{name}" for name in "qkvo"}
_CLIP_LAYER = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj",
               "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}


def write_others(source: Path, folder: Path, *, sees: bool) -> None:
    """All but the transformer into `folder`; with `sees` CLIP's tower too. Raises `NotConvertible`, `OSError`."""
    _write(_one(source, "models_t5*.pth"), _text_encoder, folder / "text_encoder")
    _write(_one(source, "Wan2.*_VAE.pth"), _vae, folder / "vae")
    link_part(_one(source, "google/umt5*"), folder / "tokenizer")
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", {
        "_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": True,
        "flow_shift": _SHIFT, "num_train_timesteps": 1000,
    })
    if sees:
        _write(_one(source, "models_clip*.pth"), _clip, folder / "image_encoder")
        side: Any = CLIPVisionConfig.from_pretrained(folder / "image_encoder").image_size
        # The authors squash the picture to a square, and cut nothing.
        CLIPImageProcessor(
            size={"height": side, "width": side}, do_center_crop=False,
        ).save_pretrained(folder / "image_processor")


def others_index(*, sees: bool) -> dict[str, list[str]]:
    """Their lines in `model_index.json`."""
    index = {
        "text_encoder": ["transformers", "UMT5EncoderModel"], "vae": ["diffusers", "AutoencoderKLWan"],
        "tokenizer": ["transformers", "T5TokenizerFast"], "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    seeing = {"image_encoder": ["transformers", "CLIPVisionModel"],
              "image_processor": ["transformers", "CLIPImageProcessor"]}
    return index | (seeing if sees else {})


def _one(source: Path, pattern: str) -> Path:
    found = sorted(source.glob(pattern))
    if not found:
        raise NotConvertible(f"{source} lacks {pattern}, which its authors publish beside the transformer")
    return found[0]


def _write(path: Path, convert: Any, folder: Path) -> None:
    try:
        config, weights, pattern = convert(dict(read_tensors(path)))
    except NotConvertible as error:
        raise NotConvertible(f"{path.name}: {error}") from error
    except (KeyError, IndexError) as error:
        raise NotConvertible(f"{path.name}: it lacks {error.args[0]}, which every such file has") from error
    write_part(folder, config, weights, pattern)


def _text_encoder(published: Weights) -> tuple[dict[str, Any], Weights, str]:
    vocabulary, width = published["token_embedding.weight"].shape
    buckets, heads = published["blocks.0.pos_embedding.embedding.weight"].shape
    config = UMT5Config(
        vocab_size=vocabulary, d_model=width, d_kv=published["blocks.0.attn.q.weight"].shape[0] // heads,
        d_ff=published["blocks.0.ffn.fc1.weight"].shape[0], num_layers=_layers(published, "blocks"), num_heads=heads,
        relative_attention_num_buckets=buckets, feed_forward_proj="gated-gelu",
    )

    def name(own: str) -> str:
        if own == "shared.weight":
            return "token_embedding.weight"
        if own == "encoder.final_layer_norm.weight":
            return "norm.weight"
        return _layer_name(own, r"encoder\.block", "blocks", _TEXT_LAYER)

    weights = _mapped(UMT5EncoderModel, config, published, name, without={"encoder.embed_tokens.weight"})
    return config.to_dict() | {"architectures": ["UMT5EncoderModel"]}, weights, TRANSFORMERS_WEIGHTS


def _vae(published: Weights) -> tuple[dict[str, Any], Weights, str]:
    latents = published["conv2.weight"].shape[0]
    if published["encoder.conv1.weight"].shape[1] != 3:
        raise NotConvertible("it is Wan2.2's VAE of TI2V-5B, which is not converted: take that model in diffusers' "
                             "layout (Wan-AI/Wan2.2-TI2V-5B-Diffusers)")
    with torch.device("meta"):
        model: Any = AutoencoderKLWan(base_dim=published["encoder.conv1.weight"].shape[0], z_dim=latents)
    renamed: Weights = convert_wan_vae_to_diffusers(published)
    weights = {name: take(renamed, name, like.shape) for name, like in model.state_dict().items()}
    refuse_rest(renamed)
    return {"_class_name": "AutoencoderKLWan", **dict(model.config)}, weights, DIFFUSERS_WEIGHTS


def _clip(published: Weights) -> tuple[dict[str, Any], Weights, str]:
    """Of the pair of towers the one that looks, without the head that nothing here reads."""
    visual = {name.removeprefix("visual."): x for name, x in published.items() if name.startswith("visual.")}
    visual.pop("head")
    width, _, patch, _ = visual["patch_embedding.weight"].shape
    layers, tokens = _layers(visual, "transformer"), visual["pos_embedding"].shape[1]
    for index in range(layers):
        for kind in ("weight", "bias"):
            joined = visual.pop(f"transformer.{index}.attn.to_qkv.{kind}")
            assert isinstance(joined, torch.Tensor)
            for part, own in zip("qkv", joined.chunk(3), strict=True):
                visual[f"transformer.{index}.self_attn.{part}_proj.{kind}"] = own.clone()
    for table, ones in (("cls_embedding", (0, 1)), ("pos_embedding", (0,))):
        whole = visual[table]
        assert isinstance(whole, torch.Tensor)
        visual[table] = whole.squeeze(ones)
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=visual["transformer.0.mlp.0.weight"].shape[0], num_hidden_layers=layers,
        num_attention_heads=width // _CLIP_HEAD_DIM, image_size=patch * math.isqrt(tokens - 1), patch_size=patch,
        hidden_act="gelu",
    )
    outer = {
        "embeddings.class_embedding": "cls_embedding", "embeddings.position_embedding.weight": "pos_embedding",
        "embeddings.patch_embedding.weight": "patch_embedding.weight",
    } | {f"{own}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")
         for own, theirs in (("pre_layrnorm", "pre_norm"), ("post_layernorm", "post_norm"))}

    def name(own: str) -> str:
        own = own.removeprefix("vision_model.")
        return outer.get(own) or _layer_name(own, r"encoder\.layers", "transformer", _CLIP_LAYER)

    weights = _mapped(CLIPVisionModel, config, visual, name)
    return config.to_dict() | {"architectures": ["CLIPVisionModel"]}, weights, TRANSFORMERS_WEIGHTS


def _layer_name(own: str, ours: str, theirs: str, names: dict[str, str]) -> str:
    """A layer's weight in the published file, from the library's name of it."""
    match = re.fullmatch(rf"{ours}\.(\d+)\.(.+)\.(weight|bias)", own)
    assert match is not None, own
    back = {library: published for published, library in names.items()}
    return f"{theirs}.{match[1]}.{back.get(match[2], match[2])}.{match[3]}"


def _mapped(kind: Any, config: Any, published: Weights, name: Any, without: Iterable[str] = ()) -> Weights:
    """Every weight of the library's `kind` from the file; raises `NotConvertible` where the two do not fit exactly."""
    with torch.device("meta"):
        expected = kind(config).state_dict()
    left = dict(published)
    weights = {own: take(left, name(own), like.shape) for own, like in expected.items() if own not in set(without)}
    refuse_rest(left)
    return weights


def _layers(names: Iterable[str], prefix: str) -> int:
    return 1 + max(int(match[1]) for name in names if (match := re.match(rf"{prefix}\.(\d+)\.", name)))
