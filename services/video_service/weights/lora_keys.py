"""The names that trainers give to the tensors of a LoRA, and what each of them is to the denoiser.

A key is a prefix, a module and a suffix: `diffusion_model.` + `blocks.0.self_attn.q` + `.lora_down.weight`. Modules
have diffusers' names or those of the authors' own code; kohya's trainers write the latter with underscores. These are
the layouts that `diffusers.loaders.lora_conversion_utils` (0.42) converts. That is not called: it drops some keys
without a word, breaks at files that lack some layers, and does not keep a key's own name to tell the user.
"""

from collections.abc import Callable, Iterable
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

@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one tensor of the file is."""

    module: str
    """Of the transformer, by diffusers' name."""
    part: Part


class KeyTable:
    """Every key that means something to a denoiser with these modules."""

    def __init__(self, modules: Iterable[str], own_name: Callable[[str], str]) -> None:
        """`own_name` gives a module's name in the authors' own code, from diffusers'."""
        self._modules: dict[str, str] = {}
        for name in modules:
            for known in (name, own_name(name)):
                self._modules |= {f"{prefix}{known}": name for prefix in _DOTTED_PREFIXES}
                self._modules[_KOHYA_PREFIX + known.replace(".", "_")] = name

    def place(self, key: str) -> Place | None:
        """None for a key that no module of the transformer has."""
        for suffix, part in _SUFFIXES.items():
            module = self._modules.get(key.removesuffix(f".{suffix}"))
            if module is not None and key.endswith(f".{suffix}"):
                return Place(module=module, part=part)
        return None
