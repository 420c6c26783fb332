"""The parts of a checkpoint in diffusers' layout, each a folder, into modules of the two libraries."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.modeling_utils import PreTrainedModel

from video_service.weights.checkpoint import CheckpointFiles
from web.worker.errors import ModelUnavailable

Kinds = Mapping[str, Any]
"""A part's folder: the library's class."""
_TIED_KEYS = {"encoder.embed_tokens.weight", "shared.weight"}  # one tensor, stored under either name
_DENOISERS = ("transformer", "unet")  # without a part of these, such as gates of VSA, the frames are not the model's
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)


def read_parts(files: CheckpointFiles, kinds: Kinds, dtype: torch.dtype, *, weights: bool = True) -> dict[str, Any]:
    """The parts by folder, on the CPU, in `dtype` but for what their library keeps in float32.

    Without `weights`: on no device, and only what their configs say. Raises `ModelUnavailable`.
    """
    folder = files.fetch(kinds if weights else ())
    try:
        if weights:
            return {name: _kept_or_read(files, kind, folder / name, dtype) for name, kind in kinds.items()}
        with torch.device("meta"):
            return {name: _empty(kind, folder / name) for name, kind in kinds.items()}
    except _UNREADABLE as error:
        what = "weights" if weights else "configs"
        raise ModelUnavailable(f"the {what} of {files.name} at {folder} cannot be loaded: {error}") from error


def _kept_or_read(files: CheckpointFiles, kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    if files.host is None:
        return read_part(kind, folder, dtype)
    key = (files.name, files.revision, folder.name, str(dtype))
    return files.host.part(key, lambda: read_part(kind, folder, dtype))


def read_tokenizer(files: CheckpointFiles, name: str = "tokenizer") -> PreTrainedTokenizerBase:
    """Raises `ModelUnavailable`."""
    return read_processor(files, AutoTokenizer, name)


def read_processor(files: CheckpointFiles, kind: Any, name: str = "image_processor") -> Any:
    """Raises `ModelUnavailable`."""
    folder = files.fetch(())
    try:
        return kind.from_pretrained(folder / name, local_files_only=True)
    except _UNREADABLE as error:
        raise ModelUnavailable(f"the {name} of {files.name} at {folder} cannot be loaded: {error}") from error


def read_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load one part strictly: the libraries only warn about weights they made up, and drop what they do not know."""
    word = "dtype" if issubclass(kind, PreTrainedModel) else "torch_dtype"  # each library has its own
    read: Any = kind.from_pretrained
    part, facts = read(folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **{word: dtype})
    refuse_made_up(folder.name, {*facts["missing_keys"], *(str(item[0]) for item in facts["mismatched_keys"])})
    if folder.name.startswith(_DENOISERS) and (unread := facts["unexpected_keys"]):
        raise ValueError(
            f"{folder.name} has {len(unread)} weights for which a {kind.__name__} has no place, such as {min(unread)}: "
            "it is a network of another kind")
    return part.eval().requires_grad_(False)


def refuse_made_up(part: str, missing: Iterable[str]) -> None:
    """Raise `ValueError` where weights are missing that no other stands for."""
    made_up = set(missing) - _TIED_KEYS
    if made_up:
        raise ValueError(f"{part} lacks {len(made_up)} weights, such as {min(made_up)}")


def _empty(kind: Any, folder: Path) -> Any:
    if issubclass(kind, PreTrainedModel):
        configs: Any = kind.config_class
        return kind(configs.from_pretrained(folder))
    return kind.from_config(kind.load_config(folder, local_files_only=True))
