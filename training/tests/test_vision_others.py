"""Drawings that no name fits: of a known kind, none of a thing that is named or kept for evaluation."""

import json
import tomllib
from pathlib import Path

import pytest

from training.vl.pictures import others
from training.vl.pictures.concepts import TABLE
from training.vl.pictures.openclipart import clipart_drawing, read_table
from training.vl.pictures.others import as_concepts, load_others, save_others

KINDS = {kind[0] for kind in tomllib.loads(TABLE.read_text("utf-8"))["kinds"].values()}

STRANGERS = {"axe", "balloon", "broccoli", "crown", "fireworks", "hook", "jar", "judge", "owl", "penguin", "taxi"}
"""Some of what evaluation keeps for itself, as emoji are labelled."""


def rows() -> list[tuple[str, str]]:
    lines = (others.HERE / "others.tsv").read_text("utf-8").splitlines()
    return [(kind, path) for kind, path in (line.split("\t") for line in lines)]


def test_every_drawing_has_a_kind_that_there_is_and_none_has_a_name_as_well() -> None:
    kinds, paths = zip(*rows(), strict=True)
    assert set(kinds) <= KINDS
    assert len(set(paths)) == len(paths) > 300
    assert not set(paths) & {path for _, path in read_table()}


def test_an_emoji_without_a_name_is_of_a_known_kind_and_stands_in_the_table_once() -> None:
    table = tomllib.loads((others.HERE / "others.toml").read_text("utf-8"))
    labels = [label for some in table.values() for label in some]
    assert set(table) <= KINDS
    assert len(set(labels)) == len(labels)
    assert not set(labels) & STRANGERS


def test_some_drawings_are_for_choosing_thresholds_alone(tmp_path: Path) -> None:
    drawings = [(kind, clipart_drawing(path, Path("data"))) for kind, path in rows()]
    save_others(drawings, tmp_path)
    taught, kept = load_others(tmp_path)
    files = [{file for some in part.values() for file in some} for part in (taught, kept)]
    assert not files[0] & files[1]
    assert len(files[0]) + len(files[1]) == len(drawings)
    assert 0.15 < len(files[1]) / len(drawings) < 0.35


def test_they_are_composed_as_things_whose_kind_alone_is_known(tmp_path: Path) -> None:
    (tmp_path / others.INDEX).write_text(json.dumps({"bird": ["a.webp", "b.webp"], "tool": ["c.webp"]}), "utf-8")
    found = [concept for part in load_others(tmp_path) for concept in as_concepts(part)]
    assert {concept.kind_en for concept in found} == {"bird", "tool"}
    assert {concept.role for concept in found} == {"strange"}
    assert sorted(file for concept in found for file in concept.files) == ["a.webp", "b.webp", "c.webp"]


def test_a_drawing_whose_name_evaluation_sees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "drawings_of_emoji", lambda *_: iter(()))
    path = rows()[0][1]
    with pytest.raises(ValueError, match="evaluation alone"):
        others.other_drawings(Path("data"), [Path(path).stem + ".svg"])
