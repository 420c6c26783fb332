"""A LoRA file of seeded matrices for every linear layer in a Wan transformer's blocks, as several trainers write it.

    path = write_lora(tmp_path / "lora.safetensors", model.transformer, "kohya")
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from video_service.layers.wan.keys import wan_name

RANK, ALPHA = 3, 5.0
Name = Callable[[str], str]
LAYOUTS: dict[str, tuple[Name, str, str, bool]] = {
    "diffusers": (lambda name: f"transformer.{name}", "lora_A", "lora_B", False),
    "original": (lambda name: f"diffusion_model.{wan_name(name)}", "lora_A", "lora_B", False),
    "original, down and up": (lambda name: f"diffusion_model.{wan_name(name)}", "lora_down", "lora_up", True),
    "kohya": (lambda name: "lora_unet_" + wan_name(name).replace(".", "_"), "lora_down", "lora_up", True),
}
"""Name of a layer, of both matrices, and whether an alpha is written (as those who train with it do)."""


def write_lora(path: Path, transformer: Any, layout: str, size: float = 0.3) -> Path:
    """Write the file and return its path; equal arguments give equal matrices, of `size` times a normal deviate."""
    name_of, down, up, with_alpha = LAYOUTS[layout]
    random = torch.Generator().manual_seed(3)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in transformer.named_modules():
        if not name.startswith("blocks.") or not isinstance(layer, torch.nn.Linear):
            continue
        key = name_of(name)
        tensors[f"{key}.{down}.weight"] = torch.randn(RANK, layer.in_features, generator=random) * size
        tensors[f"{key}.{up}.weight"] = torch.randn(layer.out_features, RANK, generator=random) * size
        if with_alpha:
            tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path
