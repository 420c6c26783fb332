"""Loading a Qwen-VL checkpoint from the hub or a folder: model, tokenizer, image processor, revision."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils.hub import cached_file, extract_commit_hash

from engines.store.revisions import content_hash
from vl_service.backend import CheckpointError
from vl_service.qwen.language import load_language_model
from vl_service.qwen.quantize import loading_options
from vl_service.settings import Settings

FAMILIES = {
    "qwen2_vl": "Qwen2-VL", "qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL", "qwen3_vl_moe": "Qwen3-VL MoE",
    "qwen3_5": "Qwen3.5", "qwen3_5_moe": "Qwen3.5 MoE",
}
TOWER_PREFIXES = ("visual.", "model.visual.")  # of Qwen2-VL's first checkpoints, and of all since
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


class UnsupportedCheckpointError(CheckpointError):
    """The checkpoint is not one that this service can run; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint; model, tokenizer and image processor are what transformers' Auto classes found."""

    model: Any
    tokenizer: Any
    image_processor: Any
    id: str
    family: str
    revision: str
    tower_revision: str
    """Of the vision tower's weights alone."""
    device: torch.device
    dtype: torch.dtype
    image_token_id: int


def load_checkpoint(settings: Settings) -> Checkpoint:
    """Load what `VL_MODEL` names; in the language role without its vision tower.

    Raises:
        UnsupportedCheckpointError: another architecture, or CUDA asked for where there is none.
        CheckpointError: VL_QUANT needs what is not installed.
        OSError: not found, from transformers.
    """
    config = read_config(settings)
    device, dtype = device_and_dtype(settings)
    options = {"revision": settings.revision, "dtype": dtype} | loading_options(settings.quant, dtype, device)
    model: Any
    if settings.role == "language":
        model = load_language_model(settings.model, config, options)
    else:
        model = AutoModelForImageTextToText.from_pretrained(settings.model, **options)
    if settings.quant == "none":
        model = model.to(device)
    tokenizer = AutoTokenizer.from_pretrained(settings.model, revision=settings.revision)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _chat_template(settings)
    return Checkpoint(
        model=model.eval().requires_grad_(False), tokenizer=tokenizer,
        image_processor=read_image_processor(settings),
        id=public_id(settings.model), family=FAMILIES[config.model_type], revision=find_revision(settings),
        tower_revision=find_tower_revision(settings), device=device, dtype=dtype, image_token_id=config.image_token_id,
    )


def read_config(settings: Settings) -> Any:
    """Of the checkpoint that `VL_MODEL` names. Raises `UnsupportedCheckpointError`, and transformers' `OSError`."""
    config = AutoConfig.from_pretrained(settings.model, revision=settings.revision)
    if config.model_type not in FAMILIES:
        raise UnsupportedCheckpointError(
            f"{settings.model} is a {config.model_type} checkpoint; VL_MODEL takes {', '.join(FAMILIES.values())} or "
            "`embedded`")
    return config


def read_image_processor(settings: Settings) -> Any:
    """Of the checkpoint. Raises transformers' `OSError`."""
    # Pillow's resampling is what the checkpoints were trained with, and needs no torchvision
    return AutoImageProcessor.from_pretrained(settings.model, revision=settings.revision, backend="pil")


def size_limits(image_processor: Any, image_tokens: int) -> dict[str, int]:
    """The processor's size limits, which are areas in pixels, with the larger cut to so many vision tokens."""
    cell = (image_processor.patch_size * image_processor.merge_size) ** 2
    size = image_processor.size
    longest = min(int(size["longest_edge"]), image_tokens * cell)
    return {"shortest_edge": min(int(size["shortest_edge"]), longest), "longest_edge": longest}


def public_id(model: str) -> str:
    """The hub id, or the folder's name."""
    # a path is this machine's business; its last folder is a name
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def device_and_dtype(settings: Settings) -> tuple[torch.device, torch.dtype]:
    """Where and in which number format it computes. Raises `UnsupportedCheckpointError`."""
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise UnsupportedCheckpointError("VL_DEVICE=cuda, but torch sees no CUDA device; use auto or cpu")
    device = torch.device("cuda" if cuda and settings.device != "cpu" else "cpu")
    if settings.dtype != "auto":
        return device, getattr(torch, settings.dtype)
    # most CPUs compute bfloat16 by emulation, slower than float32
    return device, torch.bfloat16 if device.type == "cuda" else torch.float32


def find_file(settings: Settings, name: str) -> str | None:
    """Path of one file of the checkpoint, downloaded where need be; None where it has none of this name."""
    return cached_file(settings.model, name, revision=settings.revision, _raise_exceptions_for_missing_entries=False)


def _chat_template(settings: Settings) -> str:
    """Older repositories keep the template in a file of its own that only the processor classes read."""
    path = find_file(settings, "chat_template.json")
    if path is None:
        raise UnsupportedCheckpointError(f"{settings.model} has no chat template; use an Instruct checkpoint")
    return str(json.loads(Path(path).read_text("utf-8"))["chat_template"])


def find_revision(settings: Settings) -> str:
    """The hub's commit, or a hash of a folder's content."""
    commit = extract_commit_hash(find_file(settings, "config.json"), None)
    return commit if commit is not None else f"folder-{content_hash(Path(settings.model))}"


def find_tower_revision(settings: Settings) -> str:
    """The hub's commit, or a hash of a folder's config and of the files with the tower's weights; no others are opened.

    So those who have only these files find the same. Raises `UnsupportedCheckpointError` where one is missing.
    """
    commit = extract_commit_hash(find_file(settings, "config.json"), None)
    if commit is not None:
        return commit
    folder, files = Path(settings.model), tower_files(settings)
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise UnsupportedCheckpointError(
            f"the vision tower of {settings.model} cannot be read: it has no {', '.join(missing)}")
    return f"folder-{content_hash(folder, {'config.json', *files})}"


def tower_files(settings: Settings) -> list[str]:
    """Names of the files that hold weights of the vision tower."""
    index = find_file(settings, _INDEX)
    places = {} if index is None else json.loads(Path(index).read_text("utf-8"))["weight_map"]
    return sorted({file for key, file in places.items() if key.startswith(TOWER_PREFIXES)} or {_WEIGHTS})
