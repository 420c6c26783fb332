"""Clips of an earlier evaluation are kept only where the same weights would render the same prompt."""

import json
from dataclasses import replace
from pathlib import Path

from training.evaluation.evaluate import _begin, _fingerprint, _is_done
from training.evaluation.set import make_cases

CASES = make_cases(["cat"], ["hold"], 1, 0, "en")


def clip_in(out: Path) -> Path:
    clip = out / "clips" / f"{CASES[0].name}.json"
    clip.write_text(json.dumps({"seconds": 1.0, "prompt": CASES[0].prompt}))
    return clip


def test_a_second_run_with_the_same_setup_keeps_what_is_rendered(tmp_path: Path) -> None:
    _begin(tmp_path, {"weights": "a"}, CASES)
    clip = clip_in(tmp_path)
    _begin(tmp_path, {"weights": "a"}, CASES)
    assert _is_done(clip, CASES[0])


def test_other_weights_or_options_begin_anew(tmp_path: Path) -> None:
    _begin(tmp_path, {"weights": "a"}, CASES)
    clip = clip_in(tmp_path)
    _begin(tmp_path, {"weights": "b"}, CASES)
    assert not _is_done(clip, CASES[0])
    assert json.loads((tmp_path / "cases.json").read_text())["setup"] == {"weights": "b"}


def test_another_wording_is_another_clip(tmp_path: Path) -> None:
    _begin(tmp_path, {}, CASES)
    assert not _is_done(clip_in(tmp_path), replace(CASES[0], prompt="stay"))


def test_the_fingerprint_is_of_the_weights_and_of_nothing_else(tmp_path: Path) -> None:
    weights = tmp_path / "vae" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    before = _fingerprint(str(tmp_path))
    (tmp_path / "README.md").write_text("numbers")
    assert _fingerprint(str(tmp_path)) == before
    weights.write_bytes(b"two")
    assert _fingerprint(str(tmp_path)) != before
