"""A published TurboWan2.1 T2V of random weights, with what TurboDiffusion's own network said at each step.

    from tests.checkpoints.turbowan import load_reference, save_published, save_base
    reference = load_reference()
    save_published(tmp_path / "turbo.pth", reference, quant=True)
    save_base(tmp_path / "base")              # the tiny Wan2.1 T2V whose other parts go with it
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import UMT5Config, UMT5EncoderModel

from tests.checkpoints.tiny_wan import save_tiny_wan
from video_service.layers.linear import quantise_blocks

TOPK = 0.3
"""What the reference was computed with."""
TOLD = [988.0, 932.0, 852.0, 608.0]
_DATA = Path(__file__).parents[1] / "data" / "turbowan_t2v.safetensors"


def load_reference() -> dict[str, torch.Tensor]:
    """`weights.*` as published; `text`, `noise`, `velocity_0` to `_3`, `fresh_0` to `_2` (noise of a step), `state_3`.

    Of two blocks, 256 wide; computed by the published code in bfloat16 with the state in float64, kept in float16 here.
    """
    return load_file(_DATA)


def weights_of(reference: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("weights."): x for name, x in reference.items() if name.startswith("weights.")}


def save_published(path: Path, weights: Mapping[str, Any], *, quant: bool = False) -> Path:
    """As the authors write it; `quant`: every linear layer of the blocks but `proj_l` as int8 blocks and scales."""
    torch.save(quantised(weights) if quant else dict(weights), path)
    return path


def quantised(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        layer = name.removesuffix(".weight")
        if name.startswith("blocks.") and value.ndim == 2 and layer != name and ".proj_l" not in name:
            found[f"{layer}.int8_weight"], found[f"{layer}.scale"] = quantise_blocks(value)
        else:
            found[name] = value
    return found


def save_base(folder: Path) -> Path:
    """Without a transformer, which is not needed; its text encoder is as wide as the reference's text."""
    save_tiny_wan(folder, task="t2v", vae_scale=8, card=None)
    shutil.rmtree(folder / "transformer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = UMT5Config(vocab_size=258, d_model=64, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
        UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder
