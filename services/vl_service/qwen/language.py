"""A checkpoint's language model without its vision tower, for the language role."""

from collections.abc import Mapping
from typing import Any

from transformers import AutoModelForImageTextToText

from vl_service.backend import CheckpointError


def load_language_model(name: str, config: Any, options: Mapping[str, Any]) -> Any:
    """As the Auto class loads it, but for `model.visual`, whose weights are not read. `options`: of `from_pretrained`.

    Raises `CheckpointError` where weights of the language model are missing.
    """
    whole: Any = AutoModelForImageTextToText._model_mapping[type(config)]

    def without_tower(self: Any, config: Any) -> None:
        whole.__init__(self, config)  # on the meta device: no memory yet
        del self.model.visual

    # Of the name and module of its base, by which transformers finds how weights are called in older checkpoints.
    language: Any = type(whole.__name__, (whole,), {
        "__init__": without_tower, "__module__": whole.__module__,
        "_keys_to_ignore_on_load_unexpected": [r"^(model\.)?visual\."],
    })
    model, told = language.from_pretrained(name, **options, output_loading_info=True)
    if told["missing_keys"]:
        missing = ", ".join(sorted(told["missing_keys"])[:5])
        raise CheckpointError(f"{name} lacks weights of the language model: {missing}")
    return model
