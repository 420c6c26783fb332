"""Drawings by other hands: by code point or name, of free licences, and never what evaluation alone may see."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.evaluation.vl.pictures import load_evaluation_stock
from training.ingredients.pack import sources_page
from training.vl.pictures import further
from training.vl.pictures.concepts import Concept, build_concept, save_concepts

SIDES = {"width": 8, "height": 8}


def body(text: str) -> str:
    return f'<path fill="#{hashlib.md5(text.encode()).hexdigest()[:6]}" d="M1 1h4v6z"/>'


def write_set(packages: Path, name: str, icons: list[str], chars: dict[str, str], licence: str = "MIT") -> None:
    folder = packages / f"iconify-json-{name}/package"
    folder.mkdir(parents=True)
    told: dict[str, Any] = {"icons": {icon: {"body": body(name + icon)} for icon in icons}, **SIDES}
    (folder / "icons.json").write_text(json.dumps(told))
    (folder / "chars.json").write_text(json.dumps(chars))
    (folder / "info.json").write_text(json.dumps({"author": {"name": "A"}, "license": {"spdx": licence}}))


# name, code point, subgroup; the Fluent drawing of the guide dog is held out of training, the penguin wholly
LABELS = [("dog", "1F415", "animal-mammal"), ("guide dog", "1F9AE", "animal-mammal"),
          ("penguin", "1F427", "animal-bird"), ("spider", "1F577", "animal-bug"),
          ("umbrella on ground", "26F1", "sky-weather")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    packages = tmp_path / "packages"
    rows = [{"label": label, "hexcode": code, "group": 3, "subgroup": number}
            for number, (label, code, _) in enumerate(LABELS)]
    labels = packages / "emojibase-data/package"
    for name, told in (("en/data.json", rows), ("zh/data.json", rows),
                       ("meta/groups.json", {"subgroups": {str(at): row[2] for at, row in enumerate(LABELS)}})):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text(json.dumps(told))
    names = [label.replace(" ", "-") for label, _, _ in LABELS]
    chars = {code.lower(): name for (_, code, _), name in zip(LABELS, names, strict=True)}
    for name in further.SETS:
        write_set(packages, name, names, chars if name in ("noto", "fluent-emoji-flat") else {})
    (tmp_path / "sources.json").write_text(json.dumps([
        {"file": "cutouts/emoji-0000.webp", "source": "1f415.webp"},
        {"file": "cutouts/emoji-0001.webp", "source": "1f9ae.webp"},
        {"file": "cutouts/emoji-0002.webp", "source": "1f427.webp"},
    ]))
    return tmp_path


def plain() -> list[Concept]:
    kind = ["animal", "动物", "只", "animal"]
    dog = build_concept("dog", "狗", kind, ["cutouts/emoji-0000.webp"])
    penguin = build_concept("penguin", "企鹅", kind, ["cutouts/emoji-0002.webp"])
    assert (dog.role, penguin.role) == ("known", "held")
    return [replace(dog, held_files=("cutouts/emoji-0001.webp",)), penguin]


def test_a_known_thing_gets_a_drawing_of_every_set_and_keeps_its_own(data: Path) -> None:
    grown, drawings = further.with_further(plain(), data)
    dog = next(concept for concept in grown if concept.en == "dog")
    assert dog.files[0] == "cutouts/emoji-0000.webp"
    assert {f"drawings/{name}-1f415.webp" for name in further.SETS} <= set(dog.files)
    assert sorted(drawing.file for drawing in drawings) == sorted(
        file for concept in grown for file in concept.files if file.startswith("drawings/"))


def test_what_evaluation_alone_sees_is_in_no_drawing_of_training(data: Path) -> None:
    grown, drawings = further.with_further(plain(), data)
    before, after = ({one.en: (one.role, one.held_files) for one in some} for some in (plain(), grown))
    assert after | before == after
    assert not [one for one in drawings if one.code == "1f427"]  # the penguin
    assert not [one for one in drawings if one.code == "1f9ae" and one.origin.startswith("fluent")]
    assert [one for one in drawings if one.code == "1f9ae" and one.origin == "noto"]  # another artist's guide dog


def test_a_new_thing_gets_its_role_by_name_and_what_the_table_skips_is_left_out(data: Path) -> None:
    spider, = (concept for concept in further.with_further(plain(), data)[0] if concept.en == "spider")
    assert (spider.role, spider.kind_en, spider.held_files) == (further.role_of("spider"), "insect", ())
    assert {concept.en for concept in further.with_further(plain(), data)[0]} == {"dog", "penguin", "spider"}


def test_what_a_set_draws_as_another_thing_of_the_same_name_is_left_out(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = further._tables()
    monkeypatch.setattr(further, "_tables", lambda: table | {"misleading": {"noto": ["1f415"]}})
    dog = next(concept for concept in further.with_further(plain(), data)[0] if concept.en == "dog")
    assert "drawings/noto-1f415.webp" not in dog.files
    assert "drawings/twemoji-1f415.webp" in dog.files


def test_share_alike_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, "open", [], {}, licence="CC-BY-SA-4.0")
    with pytest.raises(ValueError, match="CC-BY-SA"):
        further.IconSet(tmp_path / "iconify-json-open")


def test_names_are_looked_up_with_numbers_and_without_hyphens(tmp_path: Path) -> None:
    write_set(tmp_path, "named", ["hotdog", "bird-1", "bird-2"], {})
    icons = further.IconSet(tmp_path / "iconify-json-named")
    assert [body("namedhotdog") in svg for svg in icons.drawings("1f32d", ["hot-dog"])] == [True]
    assert len(icons.drawings("1f426", ["bird"])) == 2
    assert icons.drawings("1f427", ["penguin"]) == []


def test_a_unicode_name_that_is_another_emojis_label_is_no_name() -> None:
    names = further.names_of([{"label": "dog face", "hexcode": "1F436"}, {"label": "athletic shoe", "hexcode": "1F45E"},
                              {"label": "running shoe", "hexcode": "1F45F"}])
    assert names["1f45f"] == ["running-shoe"]
    assert names["1f45e"] == ["athletic-shoe", "mans-shoe"]


def test_a_drawing_is_cropped_and_at_most_so_large(data: Path) -> None:
    pytest.importorskip("resvg_py", reason="packing alone needs it")
    drawing = further.with_further(plain(), data)[1][0]
    picture = further.rasterise(drawing)
    assert picture.mode == "RGBA"
    assert max(picture.size) == further.DRAWING_PX
    assert picture.getchannel("A").getbbox() == (0, 0, *picture.size)
    assert picture.width < picture.height  # the path is 4 wide and 6 high


def test_the_page_lists_the_sets_with_versions_and_leaves_the_other_rows(data: Path) -> None:
    photographs = [{"file": "photos/a.jpg", "package": "p", "source": "a.jpg", "author": "B", "licence": "CC0-1.0"}]
    records = further.source_records(further.with_further(plain(), data)[1], data)
    page = sources_page(photographs, records)
    assert page.startswith(sources_page(photographs, []))
    assert "`@iconify-json/noto 1.2.9` | A | MIT |" in page


def test_evaluation_shows_the_video_packs_cut_outs_alone(tmp_path: Path) -> None:
    kind = ["animal", "动物", "只", "animal"]
    concepts = [replace(build_concept("dog", "狗", kind, []), files=("cutouts/a.webp", "drawings/b.webp"),
                                held_files=("cutouts/d.webp",)),
                replace(build_concept("spider", "蜘蛛", kind, []), files=("drawings/c.webp",))]
    save_concepts(concepts, tmp_path / "concepts.json")
    (tmp_path / "cutouts").mkdir()
    for concept in concepts:
        for file in (*concept.held_files, *(file for file in concept.files if file.startswith("cutouts/"))):
            Image.new("RGBA", (4, 4)).save(tmp_path / file)
    stock = load_evaluation_stock(tmp_path)
    assert stock is not None
    assert [concept.en for concept in stock.concepts] == ["dog"]
    assert stock.concepts[0].files == ("cutouts/a.webp",)
    assert set(stock.cutouts) == {"cutouts/a.webp", "cutouts/d.webp"}
