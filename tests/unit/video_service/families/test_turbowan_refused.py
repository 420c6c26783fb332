"""Files that are not exactly a TurboWan model are refused by `convert`, in a sentence, with nothing left behind."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from gateway.cli.convert import convert as convert_by_command
from tests.checkpoints.tiny_families import save_tiny_family
from tests.checkpoints.turbowan import quantised, save_published, weights_of
from tests.unit.video_service.conftest import load_tiny
from video_service.families.convert.command import main

Tensors = dict[str, torch.Tensor]


def changed(**named: Any) -> Callable[[Tensors], Any]:
    """With those weights instead: None takes one out, a function makes one of what was there."""
    def change(weights: dict[str, Any]) -> Any:
        for name, value in named.items():
            own = weights.pop(name, None)
            if value is not None:
                weights[name] = value(own) if callable(value) else value
        return weights
    return change


Q, K = "blocks.0.self_attn.q", "blocks.1.self_attn.k"
REFUSED: list[tuple[str, Callable[[Tensors], Any], str]] = [
    ("unknown", changed(**{"blocks.0.self_attn.extra": torch.zeros(1)}), r"does not know, such as blocks\.0\.self"),
    ("missing", changed(**{f"{K}.weight": None}), f"it lacks {K}.weight"),
    ("missing_size", changed(**{"text_embedding.0.weight": None}), r"it lacks text_embedding\.0\.weight"),
    ("missing_block", lambda w: {n.replace("blocks.1.", "blocks.9999999."): x for n, x in w.items()}, "lacks block 1"),
    ("no_shape", changed(**{"patch_embedding.weight": torch.zeros(())}), "shapes that no Wan transformer has"),
    ("no_proj_l", lambda w: {n: x for n, x in w.items() if "proj_l" not in n}, "it has no proj_l"),
    ("one_proj_l", lambda w: {n: x for n, x in w.items() if "0.self_attn.attn_op" not in n}, r"it lacks .*proj_l\.w"),
    ("shape", changed(**{f"{Q}.weight": lambda x: x[:128]}), rf"{Q}\.weight is .*\[128, 256\]"),
    ("image_to_video", changed(**{"patch_embedding.weight": torch.zeros(256, 144)}), "image-to-video .* as --low"),
    ("channels", changed(**{"patch_embedding.weight": torch.zeros(256, 140)}), "takes 35 channels for 16"),
    ("another_family", lambda w: {"unet.conv_in.weight": torch.zeros(4)}, "no Wan transformer: .*conv_in"),
    ("other_things", lambda w: {"generator": w}, "other things than tensors"),
    ("no_scale", lambda w: changed(**{f"{Q}.scale": None})(quantised(w)), f"{Q} is not one int8 weight"),
    ("scales", lambda w: changed(**{f"{Q}.scale": torch.ones(1, 2)})(quantised(w)), f"{Q} is not one int8 weight"),
    ("lone_scale", changed(**{f"{Q}.scale": torch.ones(2, 2)}), "belongs to no int8 weight"),
    ("text", changed(**{"text_embedding.0.weight": torch.zeros(256, 32)}), "text states of 32 channels.* have 64"),
]


@pytest.mark.parametrize(("change", "told"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_file_that_is_not_exactly_the_model_is_refused_in_a_sentence(
    reference: Tensors, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: Any, told: str
) -> None:
    source = save_published(tmp_path / "t.pth", change(weights_of(reference)))
    assert_refused(source, base, told, capfd)


class Payload:
    """Code that runs where its pickle is loaded."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self._proof,)


def test_pickled_code_is_refused_and_never_run(
    reference: Tensors, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proof = tmp_path / "proof"
    weights: dict[str, Any] = {**weights_of(reference), "blocks.0.self_attn.q.weight": Payload(proof)}
    assert_refused(save_published(tmp_path / "t.pth", weights), base, "pickled code, which is never run", capfd)
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_refused(tmp_path / "old.pth", base, "no archive as torch.save writes", capfd)
    assert not proof.exists()
    torch.load(tmp_path / "t.pth", weights_only=False)
    assert proof.exists(), "it was real"


@pytest.mark.parametrize("damage", ["cut", "header"])
def test_a_damaged_file_is_refused(
    reference: Tensors, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    source = save_published(tmp_path / "t.pth", weights_of(reference))
    data = bytearray(source.read_bytes())
    if damage == "cut":
        source.write_bytes(data[:-1000])
        return assert_refused(source, base, "it is truncated", capfd)
    start = data.index(b"PK\x01\x02")  # of the first file in the archive's list: where that lies
    struct.pack_into("<I", data, start + 42, len(data))
    source.write_bytes(data)
    return assert_refused(source, base, "it is damaged", capfd)


def test_a_base_of_another_kind_and_an_existing_folder_are_refused(
    reference: Tensors, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = save_published(tmp_path / "t.pth", weights_of(reference))
    other = save_tiny_family(tmp_path / "ti2v", "wan2.2-ti2v")
    assert_refused(source, other, "no Wan2.1 or Wan2.2 A14B in diffusers' layout", capfd)
    assert_refused(source, tmp_path / "nowhere", "lacks model_index.json", capfd)
    assert_refused(tmp_path / "nothing.pth", base, "No such file", capfd)
    assert main([str(source), "--base", str(base), str(base)]) == 1
    assert "is there already" in capfd.readouterr().err


def assert_refused(source: Path, base: Path, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    """With one line, and nothing is left behind."""
    before = sorted(source.parent.iterdir())
    assert main([str(source), "--base", str(base), str(source.parent / "out")]) == 1
    said = capfd.readouterr().err.strip().splitlines()
    assert re.search(told, said[-1]), said
    assert sorted(source.parent.iterdir()) == before


@pytest.mark.full
def test_stillmotion_convert_runs_it_in_another_process(
    reference: Tensors, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = save_published(tmp_path / "t.pth", weights_of(reference), quant=True)
    assert convert_by_command([str(source), "--base", str(base), str(tmp_path / "out")], Console()) == 0
    assert "20 weights in int8 blocks were dequantised to bfloat16" in capfd.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.pth"]
    assert load_tiny(tmp_path / "out").info.family == "turbowan2.1"
