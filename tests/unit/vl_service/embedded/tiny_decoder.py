"""A tiny random embedded checkpoint in the layout that the training writes."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from vl_service.embedded.model.decoder import Decoder, DecoderConfig
from vl_service.embedded.model.eight_bits import packed
from vl_service.embedded.model.tokens import make_tokenizer, pieces_of, save_tokenizer
from vl_service.embedded.vision.branch import Branch, Branches
from vl_service.embedded.vision.tower import ImageNetTower

LEAST = {"sure": 0.6, "likely": 0.3, "kind": 0.3, "drawn_kind": 0.5, "drawn": 0.0, "guess": 1.1}
WORDS = ("a photo of the tabby cat on left right in upper half picture. The main colours are brown and grey. "
         "Let it turn slowly; I am unsure what it is! 一只虎斑猫的照片。画面中央是主要颜色，镜头缓缓推近。")


def save_tiny_decoder(folder: Path, *, seed: int = 3, loud: float = 8.0) -> Path:
    """Write both weights, vocabulary and config; `loud` scales the matrices, so that texts are no constant."""
    tokenizer = make_tokenizer(sorted(set(pieces_of(WORDS))))
    config = DecoderConfig(vocabulary=len(tokenizer.pieces), names=16, width=32, layers=2, heads=2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = Decoder(config)
        tower = ImageNetTower().model
        branches = Branches(Branch(tower, config.names) for _ in range(2))
    weights = {name: value * loud if value.ndim == 2 else value for name, value in decoder.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(packed(weights), folder / "model.safetensors")
    save_file(packed(branches.state_dict()), folder / "branches.safetensors")
    save_tokenizer(tokenizer, folder / "vocabulary.json")
    drawn = {"called": ["tabby cat", *[""] * (config.names - 2)], "kinds": ["cat"] * (config.names - 1)}
    write_config(folder, config.as_dict() | drawn | {"thresholds": LEAST})
    return folder


def write_config(folder: Path, config: object) -> None:
    """Write config.json anew."""
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
