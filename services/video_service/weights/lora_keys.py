"""The names that trainers give to the tensors of a LoRA for Wan, and what each of them is to the transformer.

A key is a prefix, a module and a suffix: `diffusion_model.` + `blocks.0.self_attn.q` + `.lora_down.weight`. Modules
have diffusers' names or those of Wan's own code; kohya's trainers write the latter with underscores. These are the
layouts that `diffusers.loaders.lora_conversion_utils` (0.42) converts. That is not called: it drops some keys without a
word, breaks at files that lack some layers, and does not keep a key's own name to tell the user.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Part = Literal["A", "B", "B.bias", "alpha", "weight", "bias"]
"""A [rank, in], B [out, rank] and its bias, the alpha that scales them; or whole differences of weight and bias."""

_SUFFIXES: dict[str, Part] = {
    "lora_A.weight": "A", "lora_down.weight": "A", "lora_A.default.weight": "A", "lora.down.weight": "A",
    "lora_B.weight": "B", "lora_up.weight": "B", "lora_B.default.weight": "B", "lora.up.weight": "B",
    "lora_B.bias": "B.bias", "lora_B.default.bias": "B.bias", "alpha": "alpha", "diff": "weight", "diff_b": "bias",
}
_DOTTED_PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "")
_KOHYA_PREFIX = "lora_unet_"

# diffusers' names, and Wan's own; the order matters where one begins another.
_WAN_NAMES = (
    (r"\.attn1\.", ".self_attn."), (r"\.attn2\.", ".cross_attn."), (r"\.to_([qkv])$", r".\1"), (r"\.to_out\.0$", ".o"),
    (r"\.add_([kv])_proj$", r".\1_img"), (r"\.norm_added_k$", ".norm_k_img"), (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
    (r"\.ffn\.net\.2$", ".ffn.2"), (r"^(blocks\.\d+)\.norm2$", r"\1.norm3"),
    (r"^condition_embedder\.time_embedder\.linear_1$", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2$", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1$", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2$", "text_embedding.2"),
    (r"^condition_embedder\.time_proj$", "time_projection.1"), (r"^proj_out$", "head.head"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one tensor of the file is."""

    module: str
    """Of the transformer, by diffusers' name."""
    part: Part


class KeyTable:
    """Every key that means something to a transformer with these modules."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._modules: dict[str, str] = {}
        for name in modules:
            own = wan_name(name)
            for known in (name, own):
                self._modules |= {f"{prefix}{known}": name for prefix in _DOTTED_PREFIXES}
                self._modules[_KOHYA_PREFIX + known.replace(".", "_")] = name

    def place(self, key: str) -> Place | None:
        """None for a key that no module of the transformer has."""
        for suffix, part in _SUFFIXES.items():
            module = self._modules.get(key.removesuffix(f".{suffix}"))
            if module is not None and key.endswith(f".{suffix}"):
                return Place(module=module, part=part)
        return None


def wan_name(name: str) -> str:
    """A module's name in Wan's own code, from diffusers'."""
    for pattern, replacement in _WAN_NAMES:
        name = re.sub(pattern, replacement, name)
    return name
