"""The embedded checkpoint's folder → tower, decoder, words and thresholds, or a plain word on what is wrong with it."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vl_service.backend import CheckpointError
from vl_service.embedded import WORDS
from vl_service.embedded.model.decoder import Decoder, DecoderConfig
from vl_service.embedded.model.eight_bits import unpacked
from vl_service.embedded.model.generator import PART_MARKERS, Generator
from vl_service.embedded.model.observation import Thresholds
from vl_service.embedded.model.tokens import SPECIALS, Tokenizer, load_tokenizer
from vl_service.embedded.vision.branch import Branch, Branches, start_of
from vl_service.embedded.vision.detections import Thing
from vl_service.embedded.vision.tower import ImageNetTower

WEIGHTS, BRANCHES, CONFIG = "model.safetensors", "branches.safetensors", "config.json"
FILES = (WEIGHTS, BRANCHES, WORDS, CONFIG)
SIZES = ("vocabulary", "names", "width", "layers", "heads")
LEAST = ("sure", "likely", "kind", "drawn_kind", "drawn", "guess")
M = TypeVar("M", bound=nn.Module)
UNSET = Thresholds(sure=0.7, likely=0.5, kind=0.5, drawn_kind=0.5, drawn=0.5, guess=0.5)
"""Until training/vl/thresholds.py has chosen them."""


class EmbeddedCheckpointError(CheckpointError):
    """The embedded checkpoint cannot be used; the message names the file and what to do."""


def load_generator(folder: Path) -> tuple[Generator, str]:
    """Tower and decoder in float32 on the CPU, and the revision: the tower's, and a hash of every file's content.

    Raises:
        EmbeddedCheckpointError: a file is missing, damaged, or does not belong to the others.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise EmbeddedCheckpointError(
            f"the embedded checkpoint at {folder} lacks {', '.join(missing)}; restore it from the repository, or set "
            "STILLMOTION_MODELS to the folder that holds vl/")
    config = _json(folder / CONFIG)
    tokenizer = _tokenizer(folder / WORDS)
    sizes = _sizes(folder / CONFIG, config, tokenizer)
    decoder = _decoder(folder / WEIGHTS, sizes)
    tower = ImageNetTower()
    branches = _branches(folder / BRANCHES, tower.model, sizes.names)
    things = _things(folder / CONFIG, config, sizes.names, tokenizer)
    generator = Generator(tower.model, branches, things, decoder, tokenizer, _thresholds(folder / CONFIG, config))
    return generator, f"lite2-{tower.revision}-{_content(folder)}"


def _damaged(file: Path, why: object) -> EmbeddedCheckpointError:
    return EmbeddedCheckpointError(f"{file} is damaged: {why}; restore it from the repository")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise _damaged(file, error) from error


def _tokenizer(file: Path) -> Tokenizer:
    pieces = _json(file)
    if not (isinstance(pieces, list) and pieces and all(isinstance(piece, str) and piece for piece in pieces)):
        raise _damaged(file, "it is no list of words")
    if absent := [name for name in (*SPECIALS, *PART_MARKERS) if name not in pieces]:
        raise _damaged(file, f"it lacks the markers {', '.join(absent)}")
    return load_tokenizer(file)


def _sizes(file: Path, config: Any, tokenizer: Tokenizer) -> DecoderConfig:
    sizes: dict[str, Any] = {name: config.get(name) for name in SIZES} if isinstance(config, dict) else {}
    if wrong := [name for name in SIZES if not (isinstance(sizes.get(name), int) and sizes[name] > 0)]:
        raise _damaged(file, f"it has no whole number for {', '.join(wrong)}")
    if sizes["vocabulary"] != len(tokenizer.pieces):
        raise _damaged(file, f"it speaks of {sizes['vocabulary']} words where {WORDS} has {len(tokenizer.pieces)}")
    return DecoderConfig(**{name: int(sizes[name]) for name in SIZES})


def _things(file: Path, config: dict[str, Any], names: int, tokenizer: Tokenizer) -> tuple[Thing, ...]:
    """Those that the branches tell apart; of some only the kind is ever said, and their name is empty."""
    called, kinds = (_words(file, config, key, names - 1) for key in ("called", "kinds"))
    if unsayable := {word for word in (*filter(None, called), *kinds) if not tokenizer.encode(word)}:
        raise _damaged(file, f"{WORDS} lacks words for {', '.join(sorted(unsayable))}")
    return tuple(Thing(name=name, kind=kind) for name, kind in zip(called, kinds, strict=True))


def _words(file: Path, config: dict[str, Any], key: str, number: int) -> list[str]:
    words = config.get(key)
    if not (isinstance(words, list) and len(words) == number and all(isinstance(word, str) for word in words)):
        raise _damaged(file, f"`{key}` needs {number} words, one for each drawn thing that the branches tell apart")
    return words


def _thresholds(file: Path, config: dict[str, Any]) -> Thresholds:
    told = config.get("thresholds")
    if told is None:
        return UNSET
    try:
        return Thresholds(**{name: float(told[name]) for name in LEAST})
    except (KeyError, TypeError, ValueError) as error:
        needed = f"`thresholds` needs the numbers {', '.join(f'`{name}`' for name in LEAST)} ({error!r})"
        raise _damaged(file, needed) from error


def _decoder(file: Path, config: DecoderConfig) -> Decoder:
    with torch.device("meta"):
        decoder = Decoder(config)
    return _filled(decoder, _weights(file), file)


def _branches(file: Path, tower: nn.Module, names: int) -> Branches:
    """As many as the file holds: their weights begin with their number."""
    weights = _weights(file)
    own: dict[str, list[str]] = {}
    for name in weights:
        number, _, rest = name.partition(".")
        own.setdefault(number, []).append(rest)
    if not own:
        raise _damaged(file, "it holds no branch")
    try:
        starts = [start_of(tower, own[number]) for number in sorted(own, key=int)]
    except ValueError as error:
        raise _damaged(file, error) from error
    return _filled(Branches(Branch(tower, names, start) for start in starts), weights, file)


def _weights(file: Path) -> dict[str, Tensor]:
    """What the file holds, in float32."""
    try:
        weights = unpacked(load_file(file))
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise _damaged(file, error) from error
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise _damaged(file, "it holds numbers that are not finite")
    return weights


def _filled(module: M, weights: dict[str, Tensor], file: Path) -> M:
    """The module with these weights, frozen."""
    try:
        module.load_state_dict(weights, strict=True, assign=True)
    except (RuntimeError, ValueError) as error:
        raise _damaged(file, error) from error
    return module.eval().requires_grad_(False)


def _content(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()[:12]
